//! Released bytes stay readable: the golden files of version 1, which the independent encoder of `tests/support/frames.py` made. The
//! same files are read by `tests/compat/reader.py`. If a test here fails the format has changed: add a version, keep the files.

use runferry_wire::histogram::Histogram;
use runferry_wire::{Block, Column, Doc, Frame, Kind, Rows, Values, block, flags, payload};

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/compat/v1/", $name)).as_slice()
    };
}

fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let frame = Frame::read(bytes).expect("released bytes");
        bytes = bytes.get(frame.header.frame_len()..).expect("a frame has all its bytes");
        found.push(frame);
    }
    found
}

fn blocks(frame: &Frame<'_>) -> Vec<Block> {
    let raw = payload::decompress(&frame.header, frame.payload).expect("released bytes");
    block::decode_all(&raw).expect("released bytes")
}

fn rows(bytes: &[u8]) -> Rows {
    let frames = frames(bytes);
    let found: Vec<Rows> = frames
        .iter()
        .flat_map(blocks)
        .filter_map(|block| if let Block::Rows(rows) = block { Some(rows) } else { None })
        .collect();
    let [rows] = found.try_into().expect("one block of rows");
    rows
}

fn only(bytes: &[u8]) -> Column {
    let [column] = rows(bytes).columns.try_into().expect("one column");
    column
}

fn bits(values: &Values) -> Vec<u64> {
    let Values::F64(values) = values else { panic!("floats expected, found {values:?}") };
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_segment_of_every_frame_kind_stays_readable() {
    let frames = frames(golden!("kinds.rfj"));

    let shown: Vec<_> = frames
        .iter()
        .map(|frame| (frame.header.kind, frame.header.seq, frame.header.next_seq(), frame.header.record_count))
        .collect();
    assert_eq!(
        shown,
        [
            (Kind::Open, 1, 1, 0),
            (Kind::Data, 1, 2, 5),
            (Kind::Data, 2, 3, 1),
            (Kind::Gap, 3, 6, 3),
            (Kind::Mark, 6, 6, 0),
            (Kind::Unknown(9), 6, 6, 0),
            (Kind::Finish, 6, 7, 0),
        ]
    );
    assert!(frames.iter().all(|frame| frame.header.writer_id == 0x7FED_CBA9_8765_4321));
    assert!(frames.last().is_some_and(|frame| frame.header.flags & flags::LAST != 0));
}

#[test]
fn an_open_map_stays_readable() {
    let [opening, ..] =
        frames(golden!("kinds.rfj")).try_into().map(|frames: [Frame<'_>; 7]| frames).expect("seven frames");
    let raw = payload::decompress(&opening.header, opening.payload).expect("released bytes");
    let open = Doc::decode(&raw).expect("released bytes");

    assert_eq!(
        (open.get_str("entity"), open.get_str("id"), open.get_str("mode")),
        (Some("local"), Some("kinds"), Some("offline"))
    );
    assert_eq!((open.get_int("start_step"), open.get("relative")), (Some(7), Some(&Doc::Bool(true))));
    assert_eq!(
        open.get("config").and_then(|config| config.get("deep")),
        Some(&Doc::Map(vec![("x".to_owned(), Doc::Nil)]))
    );
}

#[test]
fn floats_keep_every_bit() {
    let expected = [
        0x8000_0000_0000_0000,
        0x0000_0000_0000_0001,
        0x7FF0_0000_0000_0000,
        0xFFF0_0000_0000_0000,
        0x7FF8_0000_0000_0000,
        0xFFF8_0000_DEAD_BEEF,
        0x7FF0_0000_0000_0001,
        0x7FEF_FFFF_FFFF_FFFF,
        0x3FB9_9999_9999_999A,
    ];

    assert_eq!(bits(&only(golden!("floats.frame")).values), expected);
}

#[test]
fn floats_of_32_bits_widen_with_their_payload() {
    let expected = [
        0x3FE0_0000_0000_0000,
        0x8000_0000_0000_0000,
        0x36A0_0000_0000_0000,
        0x7FF0_0000_0000_0000,
        0x7FF8_0000_0000_0000,
        0xFFF8_2468_A000_0000,
        0x3FB9_9999_A000_0000,
    ];

    assert_eq!(bits(&only(golden!("singles.frame")).values), expected);
}

#[test]
fn integers_wrap_from_one_end_to_the_other() {
    let expected = vec![0, -1, i64::MAX, i64::MIN, (1 << 53) + 1, i64::MAX, 7];

    assert_eq!(only(golden!("integers.frame")).values, Values::I64(expected));
}

#[test]
fn histograms_stay_readable_in_all_variants() {
    let Values::Hist(values) = only(golden!("histograms.frame")).values else { panic!("histograms expected") };
    let found: Vec<Histogram> = values.iter().map(|value| Histogram::decode(value).expect("released bytes")).collect();

    let shown: Vec<_> =
        found.iter().take(5).map(|it| (it.edges.clone(), it.counts.clone(), it.nan_count, it.inf_count)).collect();
    assert_eq!(
        shown,
        [
            (vec![0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0], vec![1.0, 2.0, 300.0], 0, 0),
            (vec![-1.5, 1.5], vec![0.0], 3, 70_000),
            (vec![0.0, 1.0, 4.0, 9.0], vec![1.0, 2.0, 3.0], 0, 0),
            (vec![0.0, 1.0, 4.0, 9.0], vec![0.5, 2.25, 1e300], 1, 0),
            (vec![0.0, 1.0, 2.0], vec![0.25, 0.75], 0, 0),
        ]
    );
    assert!(found.last().is_some_and(|last| last.counts.len() == 512 && last.edges.last() == Some(&512.0)));
}

#[test]
fn one_name_in_several_kinds_fills_every_row_once() {
    let rows = rows(golden!("mixed.frame"));

    assert_eq!(rows.steps, (0..27).map(|index| index * index / 2).collect::<Vec<i64>>());
    let of_x: Vec<&Column> = rows.columns.iter().filter(|column| column.name == "x").collect();
    assert_eq!(of_x.len(), 6);
    for index in 0..27 {
        let present = of_x.iter().filter(|column| column.has(index)).count();
        assert_eq!(present, usize::from(index != 13), "row {index}");
    }
    assert!(
        rows.columns
            .iter()
            .any(|column| column.name == "_timestamp" && column.has(13) && column.values == Values::Null(1))
    );
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let [frame] = frames(golden!("later.frame")).try_into().expect("one frame");

    let known: Vec<Block> =
        blocks(&frame).into_iter().filter(|block| !matches!(block, Block::Unknown { .. })).collect();

    let [Block::Rows(rows), Block::Config(config), Block::Meta(meta)] = known.as_slice() else { panic!("{known:?}") };
    assert_eq!(rows.columns.first().map(|column| bits(&column.values)), Some(vec![1.5_f64.to_bits()]));
    assert_eq!(config.updates, Doc::Map(vec![("a".to_owned(), Doc::Int(1))]));
    assert_eq!(meta.get_str("name"), Some("n"));
}

#[test]
fn a_frame_without_compression_stays_readable() {
    let rows = rows(golden!("plain.frame"));

    assert_eq!(
        (rows.steps, rows.columns.first().map(|column| bits(&column.values))),
        (vec![0, 3], Some(vec![0.5_f64.to_bits(), 0.25_f64.to_bits()]))
    );
}

#[test]
fn a_journal_of_the_released_writer_stays_readable() {
    let frames = frames(golden!("written.rfj"));

    let kinds: Vec<Kind> = frames.iter().map(|frame| frame.header.kind).collect();
    assert_eq!(kinds, [Kind::Open, Kind::Data, Kind::Finish]);
    let rows = rows(data_of(golden!("written.rfj")));
    assert_eq!(rows.steps, [0, 1, 2, 3, 10, 11]);
}

/// The bytes of the only DATA frame of a segment.
fn data_of(mut bytes: &[u8]) -> &[u8] {
    loop {
        let frame = Frame::read(bytes).expect("released bytes");
        let len = frame.header.frame_len();
        if frame.header.kind == Kind::Data {
            return bytes.get(..len).expect("a frame has all its bytes");
        }
        bytes = bytes.get(len..).expect("a frame has all its bytes");
    }
}
