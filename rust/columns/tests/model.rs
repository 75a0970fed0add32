//! Random frames of several writers, merged at random moments, against a plain map that knows the law and nothing else.

#![expect(clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, HashMap};

use proptest::collection::vec;
use proptest::prelude::*;
use runferry_columns::axis::AxisRow;
use runferry_columns::buckets::{Chart, Head, Heads, SeriesRead};
use runferry_columns::cells::Cell;
use runferry_columns::chunk::ChunkRow;
use runferry_columns::merge::Merge;
use runferry_columns::scan::{Scan, Wanted};
use runferry_columns::sums::StoredSums;
use runferry_columns::table::{Role, Table, Window, Writer};
use runferry_wire::block::{self, Block};
use runferry_wire::receipt::Sums;
use runferry_wire::{Column, Draft, Frame, Kind, Rows, Values, payload, rows};

const NAMES: [&str; 3] = ["loss", "acc", "<b>"];
const RUN: [u8; 16] = [5; 16];

/// What a test logs at one row: a step increment and a value per name.
type LoggedRow = (i64, [Option<Cell>; 3]);

#[derive(Debug, Clone)]
enum Operation {
    /// The next frame of a writer.
    Frame {
        writer: usize,
        rows: Vec<LoggedRow>,
    },
    Merge {
        joins: Vec<bool>,
    },
}

fn any_cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        4 => any::<f32>().prop_map(|value| Cell::F64(f64::from(value))),
        2 => any::<u64>().prop_map(|bits| Cell::F64(f64::from_bits(bits))),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-0.0)].prop_map(Cell::F64),
        2 => any::<i64>().prop_map(Cell::I64),
        1 => any::<bool>().prop_map(Cell::Bool),
        1 => Just(Cell::Null),
        1 => "[a-z]{0,9}".prop_map(Cell::Str),
        1 => vec(any::<u8>(), 0..9).prop_map(Cell::Hist),
        1 => vec(any::<u8>(), 0..9).prop_map(Cell::Json),
        1 => Just(Cell::Marker("t".into(), "x".into())),
    ]
}

fn any_number() -> impl Strategy<Value = Cell> {
    any::<i16>().prop_map(|value| Cell::F64(f64::from(value) / 8.0))
}

fn any_frame(cell: BoxedStrategy<Cell>, most_rows: usize) -> impl Strategy<Value = Operation> {
    let value = proptest::option::weighted(0.7, cell);
    let row = (prop_oneof![5 => Just(1_i64), 1 => Just(0), 1 => -20_i64..60], [value.clone(), value.clone(), value]);
    (0_usize..3, vec(row, 1..most_rows)).prop_map(|(writer, rows)| Operation::Frame { writer, rows })
}

fn any_history(cell: BoxedStrategy<Cell>, most_rows: usize) -> impl Strategy<Value = Vec<Operation>> {
    let merge = vec(any::<bool>(), 4).prop_map(|joins| Operation::Merge { joins });
    vec(prop_oneof![3 => any_frame(cell, most_rows), 1 => merge], 1..16)
}

fn any_writers() -> impl Strategy<Value = Vec<Writer>> {
    let writer = (0_i64..3, prop_oneof![Just(""), Just("rank1")], prop_oneof![Just(0_i64), Just(10)]);
    vec(writer, 3).prop_map(|writers| {
        let numbered = writers.into_iter().enumerate();
        numbered
            .map(|(index, (started_us, label, step_offset))| Writer {
                started_us,
                writer_id: 90 - index as u64,
                label: label.to_owned(),
                step_offset,
            })
            .collect()
    })
}

/// Start of the writer, its id, seq, place in the frame: the law.
type Decides = (i64, u64, u64, usize);
/// One value of the plain map: what decides, time, value.
type Entry = (Decides, i64, Cell);
/// Step, time, values of a row.
type Row<'a> = (i64, i64, &'a [Option<Cell>; 3]);

/// A store in memory that does what the real one does with its tables.
struct Store {
    writers: Vec<Writer>,
    next_seqs: Vec<u64>,
    clocks: Vec<i64>,
    steps: Vec<i64>,
    waiting: Vec<(u32, Vec<u8>)>,
    chunks: BTreeMap<(u8, String, String), Vec<ChunkRow>>,
    axes: HashMap<(i64, i64), AxisRow>,
    next_axis_id: i64,
    superseded: Vec<(u32, String, Sums)>,
    /// What the writers' receipts say.
    logged: StoredSums,
    model: BTreeMap<(String, String), BTreeMap<i64, Entry>>,
    /// Label to step to what decides and time.
    model_rows: BTreeMap<i64, (Decides, i64)>,
}

impl Store {
    fn new(writers: Vec<Writer>) -> Self {
        Self {
            next_seqs: vec![1; writers.len()],
            clocks: vec![0; writers.len()],
            steps: vec![0; writers.len()],
            writers,
            waiting: Vec::new(),
            chunks: BTreeMap::new(),
            axes: HashMap::new(),
            next_axis_id: 1,
            superseded: Vec::new(),
            logged: StoredSums::new(),
            model: BTreeMap::new(),
            model_rows: BTreeMap::new(),
        }
    }

    /// Seals a frame with one block per stretch of ascending steps, and tells the plain map.
    fn log(&mut self, index: usize, logged: &[LoggedRow]) {
        let writer = self.writers[index].clone();
        let seq = self.next_seqs[index];
        let mut stretches: Vec<Vec<Row<'_>>> = vec![Vec::new()];
        for (place, (increment, cells)) in logged.iter().enumerate() {
            self.clocks[index] += 7;
            let step = self.steps[index] + increment;
            if step < self.steps[index] {
                stretches.push(Vec::new());
            }
            self.steps[index] = step;
            let time = self.clocks[index] * 100 + index as i64;
            stretches.last_mut().expect("never empty").push((step, time, cells));

            let decides = (writer.started_us, writer.writer_id, seq, place);
            let step = step + writer.step_offset;
            if self.model_rows.get(&step).is_none_or(|old| old.0 < decides) {
                self.model_rows.insert(step, (decides, time));
            }
            for (name, cell) in NAMES.iter().zip(cells) {
                let Some(cell) = cell else { continue };
                let series = self.model.entry((writer.label.clone(), (*name).to_owned())).or_default();
                if series.get(&step).is_none_or(|old| old.0 < decides) {
                    series.insert(step, (decides, time, cell.clone()));
                }
            }
        }
        let blocks: Vec<Block> = stretches.iter().map(|stretch| Block::Rows(to_rows(stretch))).collect();
        let raw = block::encode_all(&blocks);
        let (codec, stored) = payload::compress(&raw, 1);
        let draft = Draft {
            kind: Kind::Data,
            flags: 0,
            run_id: RUN,
            writer_id: writer.writer_id,
            seq,
            record_count: logged.len() as u32,
        };
        let frame = draft.seal(codec, raw.len() as u32, &stored);
        self.logged.add_frame(index as u32, &frame).expect("sealed here");
        self.waiting.push((index as u32, frame));
        self.next_seqs[index] += 1;
    }

    fn merge(&mut self, joins: &[bool]) {
        let mut merge = Merge::with_chunk_points(7);
        for (ordinal, writer) in self.writers.iter().enumerate() {
            merge.set_writer(ordinal as u32, writer.clone());
        }
        for (ordinal, frame) in self.waiting.drain(..) {
            merge.add_frame(ordinal, &frame).expect("sealed here");
        }
        let series: Vec<_> =
            merge.table().series().iter().map(|one| (one.role as u8, one.label.clone(), one.name.clone())).collect();
        let mut joins = joins.iter().copied().cycle();
        let mut key_ids = Vec::new();
        for (number, key) in series.iter().enumerate() {
            let stored = self.chunks.entry(key.clone()).or_default();
            let ranges: Vec<_> = stored.iter().map(|chunk| (chunk.step0, chunk.step1)).collect();
            let touched = merge.touch(number, &ranges);
            let mut kept = Vec::new();
            for (chunk, is_touched) in std::mem::take(stored).into_iter().zip(touched) {
                if is_touched || joins.next() == Some(true) {
                    merge.add_chunk(number, &chunk, &self.axes[&(chunk.axis_id, chunk.step0)]).expect("undamaged");
                } else {
                    merge.leave(number, (chunk.step0, chunk.step1));
                    kept.push(chunk);
                }
            }
            *self.chunks.get_mut(key).expect("just made") = kept;
            key_ids.push(1000 + i64::from(key.0) * 100 + number as i64);
        }
        let merged = merge.finish(&key_ids, self.next_axis_id);
        self.next_axis_id += merged.axes.len() as i64;
        for (axis, chunks) in merged.axes {
            assert!(chunks > 0, "an axis without a chunk");
            self.axes.insert((axis.axis_id, axis.step0), axis);
        }
        for chunk in merged.chunks {
            let number = key_ids.iter().position(|id| *id == chunk.key_id).expect("one of ours");
            self.chunks.get_mut(&series[number]).expect("just made").push(chunk);
        }
        for chunks in self.chunks.values_mut() {
            chunks.sort_by_key(|chunk| chunk.step0);
            let do_not_overlap = chunks.windows(2).all(|pair| pair[0].step1 < pair[1].step0);
            assert!(
                do_not_overlap,
                "chunks overlap: {:?}",
                chunks.iter().map(|chunk| (chunk.step0, chunk.step1)).collect::<Vec<_>>()
            );
        }
        for lost in merged.superseded {
            let number = key_ids.iter().position(|id| *id == lost.key_id).expect("one of ours");
            let sums = Sums { points: lost.points, hash: lost.sum_hash };
            self.superseded.push((lost.writer, series[number].2.clone(), sums));
        }
    }

    /// What the stored bytes say, by writer and metric.
    fn stored_sums(&self) -> HashMap<u32, HashMap<String, Sums>> {
        let mut sums = StoredSums::new();
        for (ordinal, writer) in self.writers.iter().enumerate() {
            sums.set_offset(ordinal as u32, writer.step_offset);
        }
        for ((.., name), chunks) in &self.chunks {
            for chunk in chunks {
                sums.add_chunk(name, chunk, &self.axes[&(chunk.axis_id, chunk.step0)]).expect("undamaged");
            }
        }
        for (ordinal, name, lost) in &self.superseded {
            sums.add(*ordinal, name, *lost);
        }
        for (ordinal, frame) in &self.waiting {
            sums.add_frame(*ordinal, frame).expect("sealed here");
        }
        sums.finish()
    }

    fn tail(&self) -> Table {
        let mut tail = Table::new();
        for (ordinal, writer) in self.writers.iter().enumerate() {
            tail.set_writer(ordinal as u32, writer.clone());
        }
        for (ordinal, frame) in &self.waiting {
            tail.add_frame(*ordinal, frame).expect("sealed here");
            tail.settle();
        }
        tail
    }

    fn chart(&self, label: &str, name: &str, window: Window, buckets: usize) -> Chart {
        let empty = Vec::new();
        let chunks = self.chunks.get(&(Role::Metric as u8, label.to_owned(), name.to_owned())).unwrap_or(&empty);
        let axis = |chunk: &ChunkRow| self.axes[&(chunk.axis_id, chunk.step0)].clone();
        let span = chunks.first().zip(chunks.last()).map(|(first, last)| Window { min: first.step0, max: last.step1 });
        let head = |chunk: &ChunkRow| Head {
            chunk: ChunkRow { data: Vec::new(), ..chunk.clone() },
            time1_us: axis(chunk).time1_us,
            axis_sub: axis(chunk).sub,
        };
        let heads = Heads::new(chunks.iter().map(head).collect()).expect("undamaged");
        let mut read = SeriesRead::new(&self.tail(), (label, name), heads, span, window, buckets);
        loop {
            let needed = read.need();
            if needed.is_empty() {
                return read.finish();
            }
            for index in needed {
                read.feed(index, &chunks[index], &axis(&chunks[index])).expect("undamaged");
            }
        }
    }

    fn scan(&self, wanted: &Wanted, window: Window) -> (Vec<i64>, Vec<Vec<u8>>) {
        let mut scan = Scan::new(&self.tail(), wanted.clone(), window);
        for ((role, _, name), chunks) in &self.chunks {
            let role = if *role == Role::Rows as u8 { Role::Rows } else { Role::Metric };
            let is_wanted = match wanted {
                Wanted::All => true,
                Wanted::Names(names) => role == Role::Rows || names.contains(name),
                Wanted::Histograms(only) => role == Role::Rows || only == name,
            };
            for chunk in chunks.iter().filter(|_| is_wanted) {
                scan.add_chunk(role, name, chunk, &self.axes[&(chunk.axis_id, chunk.step0)]).expect("undamaged");
            }
        }
        let steps = scan.steps();
        let frames = scan.frames(RUN, 1, &steps).expect("small rows");
        (steps, frames)
    }
}

fn to_rows(stretch: &[Row<'_>]) -> Rows {
    let mut columns = Vec::new();
    for (place, name) in NAMES.iter().enumerate() {
        for kind in 0..9 {
            let here: Vec<Option<&Cell>> =
                stretch.iter().map(|row| row.2[place].as_ref().filter(|cell| cell.kind() == kind)).collect();
            if here.iter().all(Option::is_none) {
                continue;
            }
            let presence = here.iter().any(Option::is_none).then(|| rows::mask(here.iter().map(Option::is_some)));
            columns.push(Column { name: (*name).to_owned(), presence, values: to_values(here.into_iter().flatten()) });
        }
    }
    Rows {
        steps: stretch.iter().map(|row| row.0).collect(),
        times_us: stretch.iter().map(|row| row.1).collect(),
        columns,
    }
}

fn to_values<'a>(cells: impl Iterator<Item = &'a Cell>) -> Values {
    match runferry_columns::cells::Cells::from_cells(cells.cloned().collect()) {
        runferry_columns::cells::Cells::Uniform(values) => values,
        runferry_columns::cells::Cells::Mixed(_) => unreachable!("cells of one kind"),
    }
}

/// Rows of frames as step to time and name to value bytes; steps must ascend over all of them.
fn read_rows(frames: &[Vec<u8>]) -> Vec<(i64, i64, BTreeMap<String, Vec<u8>>)> {
    let mut found: Vec<(i64, i64, BTreeMap<String, Vec<u8>>)> = Vec::new();
    for bytes in frames {
        let frame = Frame::read(bytes).expect("just sealed");
        let raw = payload::decompress(&frame.header, frame.payload).expect("just sealed");
        for block in block::decode_all(&raw).expect("just sealed") {
            let Block::Rows(rows) = block else { panic!("only rows") };
            let first = found.len();
            found.extend(rows.steps.iter().zip(&rows.times_us).map(|(step, time)| (*step, *time, BTreeMap::new())));
            for column in &rows.columns {
                let cells = runferry_columns::cells::Cells::Uniform(column.values.clone());
                let present = (0..rows.steps.len()).filter(|index| column.has(*index));
                for (place, index) in present.enumerate() {
                    let value = cells.get(place).expect("one per present row").to_bytes();
                    assert_eq!(
                        found[first + index].2.insert(column.name.clone(), value),
                        None,
                        "two values in one row"
                    );
                }
            }
        }
    }
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "steps ascend");
    found
}

fn run(store: &mut Store, history: &[Operation]) {
    for operation in history {
        match operation {
            Operation::Frame { writer, rows } => store.log(*writer, rows),
            Operation::Merge { joins } => store.merge(joins),
        }
    }
}

/// The chart by definition, from the plain map.
fn brute_force(points: &[(i64, i64, f64)], span: Window, buckets: usize) -> Vec<(i64, i64, i64, Vec<f64>)> {
    if points.len() <= buckets {
        return points.iter().map(|(step, time, value)| (*step, *step, *time, vec![*value])).collect();
    }
    let range = i128::from(span.max) - i128::from(span.min) + 1;
    let width = (range + buckets as i128 - 1) / buckets as i128;
    let mut found: BTreeMap<i128, (i64, i64, i64, Vec<f64>)> = BTreeMap::new();
    for (step, time, value) in points {
        let place = (i128::from(*step) - i128::from(span.min)) / width;
        let bucket = found.entry(place).or_insert((*step, *step, *time, Vec::new()));
        (bucket.1, bucket.2) = (*step, *time);
        bucket.3.push(*value);
    }
    found.into_values().collect()
}

fn check_charts(store: &Store, window: Window, buckets: usize) {
    for ((label, name), series) in &store.model {
        let all: Vec<i64> = series.keys().copied().collect();
        let span = Window { min: all[0].max(window.min), max: all[all.len() - 1].min(window.max) };
        let points = series.iter().filter(|(step, _)| window.has(**step));
        let points: Vec<_> =
            points.filter_map(|(step, (_, time, cell))| Some((*step, *time, cell.number()?))).collect();

        let chart = store.chart(label, name, window, buckets);

        assert_eq!(chart.raw_points, points.len() as u64);
        let expected = brute_force(&points, span, buckets);
        assert_eq!(chart.buckets.len(), expected.len());
        for (bucket, (step_first, step_last, time, values)) in chart.buckets.iter().zip(&expected) {
            assert_eq!((bucket.step_first, bucket.step_last, bucket.time_last_us), (*step_first, *step_last, *time));
            assert_eq!(bucket.last.to_bits(), values[values.len() - 1].to_bits());
            let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
            let stats = &bucket.stats;
            assert_eq!(stats.finite as usize, finite.len());
            assert_eq!(stats.nan as usize, values.iter().filter(|value| value.is_nan()).count());
            assert_eq!(stats.inf as usize, values.iter().filter(|value| value.is_infinite()).count());
            assert_eq!(stats.min(), finite.iter().copied().reduce(f64::min));
            assert_eq!(stats.max(), finite.iter().copied().reduce(f64::max));
            let sum: f64 = finite.iter().sum();
            let scale: f64 = finite.iter().map(|value| value.abs()).sum();
            assert!(!sum.is_finite() || !stats.sum.is_finite() || (stats.sum - sum).abs() <= scale * 1e-12);
        }
    }
}

fn check_scan(store: &Store, window: Window) {
    let mut expected: BTreeMap<i64, BTreeMap<String, (&Entry, Vec<u8>)>> = BTreeMap::new();
    for step in store.model_rows.keys().filter(|step| window.has(**step)) {
        expected.entry(*step).or_default();
    }
    for ((_, name), series) in &store.model {
        for (step, entry) in series.iter().filter(|(step, _)| window.has(**step)) {
            let row = expected.entry(*step).or_default();
            if row.get(name).is_none_or(|(old, _)| old.0 < entry.0) {
                row.insert(name.clone(), (entry, entry.2.to_bytes()));
            }
        }
    }

    let all = read_rows(&store.scan(&Wanted::All, window).1);
    assert_eq!(all.len(), expected.len());
    for ((step, time, found), (expected_step, row)) in all.iter().zip(&expected) {
        assert_eq!((step, time), (expected_step, &store.model_rows[step].1));
        assert_eq!(
            found,
            &row.iter().map(|(name, (_, value))| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>()
        );
    }

    let loss = read_rows(&store.scan(&Wanted::Names(["loss".to_owned()].into()), window).1);
    let with_loss: Vec<i64> =
        expected.iter().filter(|(_, row)| row.contains_key("loss")).map(|(step, _)| *step).collect();
    assert_eq!(loss.iter().map(|row| row.0).collect::<Vec<_>>(), with_loss);

    let is_histogram =
        |row: &BTreeMap<String, (&Entry, Vec<u8>)>| row.get("loss").is_some_and(|(_, value)| value[0] == 6);
    let histograms: Vec<i64> = expected.iter().filter(|(_, row)| is_histogram(row)).map(|(step, _)| *step).collect();
    assert_eq!(store.scan(&Wanted::Histograms("loss".to_owned()), window).0, histograms);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn charts_and_scans_say_what_was_logged_whenever_it_was_merged(
        writers in any_writers(),
        history in any_history(any_cell().boxed(), 12),
        window in prop_oneof![Just(Window::ALL), (-20_i64..40, 0_i64..60).prop_map(|(min, len)| Window { min, max: min + len })],
        buckets in 1_usize..20,
    ) {
        let mut store = Store::new(writers);

        run(&mut store, &history);

        check_charts(&store, window, buckets);
        check_scan(&store, window);
    }

    #[test]
    fn a_merge_changes_no_answer(writers in any_writers(), history in any_history(any_cell().boxed(), 12), buckets in 1_usize..20) {
        let mut store = Store::new(writers);
        run(&mut store, &history);
        let before = read_rows(&store.scan(&Wanted::All, Window::ALL).1);

        store.merge(&[false]);

        prop_assert_eq!(read_rows(&store.scan(&Wanted::All, Window::ALL).1), before);
        check_charts(&store, Window::ALL, buckets);
    }

    #[test]
    fn stored_and_superseded_points_are_what_the_receipts_of_the_writers_say(
        writers in any_writers(), history in any_history(any_cell().boxed(), 12),
    ) {
        let mut store = Store::new(writers);
        run(&mut store, &history);
        prop_assert_eq!(&store.stored_sums(), &std::mem::take(&mut store.logged).finish());
    }

    #[test]
    fn a_snapped_chart_tells_the_truth_about_the_range_it_names(
        writers in any_writers(), values in vec(any::<f32>(), 3000..6000), cut in 500_usize..3000, buckets in 1_usize..4,
    ) {
        let writer = Writer { label: String::new(), step_offset: 0, ..writers[0].clone() };
        let mut frames = Store::new(vec![writer]);
        let mut merge = Merge::new();
        merge.set_writer(0, frames.writers[0].clone());
        for part in [&values[..cut], &values[cut..]] {
            let logged: Vec<LoggedRow> = part.iter().map(|value| (1, [Some(Cell::F64(f64::from(*value))), None, None])).collect();
            frames.log(0, &logged);
        }
        for (ordinal, frame) in frames.waiting.drain(..) {
            merge.add_frame(ordinal, &frame).expect("sealed here");
        }
        let merged = merge.finish(&[1, 2], 1);
        frames.axes = merged.axes.into_iter().map(|(axis, _)| ((axis.axis_id, axis.step0), axis)).collect();
        for chunk in merged.chunks {
            let key = (u8::from(chunk.key_id == 1), String::new(), if chunk.key_id == 1 { "" } else { "loss" }.to_owned());
            frames.chunks.entry(key).or_default().push(chunk);
        }

        let chart = frames.chart("", "loss", Window::ALL, buckets);

        prop_assert_eq!(chart.raw_points, values.len() as u64);
        prop_assert!(chart.buckets.len() <= buckets);
        prop_assert!(chart.buckets.windows(2).all(|pair| pair[0].step_last < pair[1].step_first));
        let series = &frames.model[&(String::new(), "loss".to_owned())];
        for bucket in &chart.buckets {
            let here: Vec<f64> = series.range(bucket.step_first..=bucket.step_last).filter_map(|(_, entry)| entry.2.number()).collect();
            prop_assert_eq!(bucket.stats.numbers() as usize, here.len());
            prop_assert_eq!(bucket.stats.min(), here.iter().copied().filter(|value| value.is_finite()).reduce(f64::min));
            prop_assert_eq!(bucket.last.to_bits(), here[here.len() - 1].to_bits());
            prop_assert_eq!(bucket.time_last_us, series[&bucket.step_last].1);
        }
    }

    #[test]
    fn numbers_alone_are_charted_alike(
        writers in any_writers(), history in any_history(any_number().boxed(), 40), buckets in 1_usize..12,
    ) {
        let mut store = Store::new(writers);

        run(&mut store, &history);

        check_charts(&store, Window::ALL, buckets);
    }
}
