//! The chunk store's heavy work for `runferry.server.store`: merging, charts, scans.
//!
//! Rows cross as tuples in the column order of the tables `chunk` and `axis` (without the run), so that Python passes them
//! between SQLite and here as they are. Damage is an answer (text per item), never an exception: one bad chunk must
//! not stop a merge. The interpreter is released around everything that decodes or encodes.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyTuple};
use runferry_columns::axis::AxisRow;
use runferry_columns::cells::Cell;
use runferry_columns::chunk::ChunkRow;
use runferry_columns::merge;
use runferry_columns::pack::{ChunkError, Unpacker};
use runferry_columns::scan::{self, Wanted};
use runferry_columns::stats::Stats;
use runferry_columns::table::{Role, Series, Table, Window, Writer};
use runferry_wire::Doc;
use runferry_wire::msgpack::MsgpackError;

use crate::frames::doc_to_python;

/// `(ordinal, started_us, writer_id, label, step_offset)`.
type PythonWriter = (u32, i64, u64, String, i64);
/// `(ordinal of the writer, frame)`.
pub(crate) type PythonFrame = (u32, PyBackedBytes);
/// One text per item that failed.
pub(crate) type Faults = Vec<Option<String>>;

fn writer((ordinal, started_us, writer_id, label, step_offset): PythonWriter) -> (u32, Writer) {
    (ordinal, Writer { started_us, writer_id, label, step_offset })
}

/// Nothing here leaves its data half changed on a panic, so a poisoned lock is as good as any.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn role(number: u8) -> PyResult<Role> {
    match number {
        0 => Ok(Role::Metric),
        1 => Ok(Role::Rows),
        other => Err(PyValueError::new_err(format!("series role {other}, expected 0 or 1"))),
    }
}

fn role_number(role: Role) -> u8 {
    match role {
        Role::Metric => 0,
        Role::Rows => 1,
    }
}

/// A row of `chunk`; NULL for `data` when only its head was read.
pub(crate) fn chunk_row(row: &Bound<'_, PyTuple>) -> PyResult<ChunkRow> {
    let bytes = |index: usize| -> PyResult<Vec<u8>> {
        Ok(row.get_item(index)?.extract::<Option<PyBackedBytes>>()?.map_or_else(Vec::new, |bytes| bytes.to_vec()))
    };
    Ok(ChunkRow {
        key_id: row.get_item(0)?.extract()?,
        step0: row.get_item(1)?.extract()?,
        step1: row.get_item(2)?.extract()?,
        axis_id: row.get_item(3)?.extract()?,
        n: row.get_item(4)?.extract()?,
        kind: row.get_item(5)?.extract()?,
        stats: Stats {
            finite: row.get_item(6)?.extract()?,
            nan: row.get_item(7)?.extract()?,
            inf: row.get_item(8)?.extract()?,
            min: row.get_item(9)?.extract()?,
            max: row.get_item(10)?.extract()?,
            sum: row.get_item(11)?.extract()?,
        },
        first: bytes(12)?,
        last: bytes(13)?,
        sub: bytes(14)?,
        codec: row.get_item(15)?.extract()?,
        head_crc32c: row.get_item(16)?.extract()?,
        crc32c: row.get_item(17)?.extract()?,
        data: bytes(18)?,
    })
}

fn chunk_tuple<'py>(py: Python<'py>, chunk: &ChunkRow) -> PyResult<Bound<'py, PyTuple>> {
    let stats = &chunk.stats;
    let items: [Bound<'py, PyAny>; 19] = [
        chunk.key_id.into_pyobject(py)?.into_any(),
        chunk.step0.into_pyobject(py)?.into_any(),
        chunk.step1.into_pyobject(py)?.into_any(),
        chunk.axis_id.into_pyobject(py)?.into_any(),
        chunk.n.into_pyobject(py)?.into_any(),
        chunk.kind.into_pyobject(py)?.into_any(),
        stats.finite.into_pyobject(py)?.into_any(),
        stats.nan.into_pyobject(py)?.into_any(),
        stats.inf.into_pyobject(py)?.into_any(),
        stats.min.into_pyobject(py)?.into_any(),
        stats.max.into_pyobject(py)?.into_any(),
        stats.sum.into_pyobject(py)?.into_any(),
        PyBytes::new(py, &chunk.first).into_any(),
        PyBytes::new(py, &chunk.last).into_any(),
        PyBytes::new(py, &chunk.sub).into_any(),
        chunk.codec.into_pyobject(py)?.into_any(),
        chunk.head_crc32c.into_pyobject(py)?.into_any(),
        chunk.crc32c.into_pyobject(py)?.into_any(),
        PyBytes::new(py, &chunk.data).into_any(),
    ];
    PyTuple::new(py, items)
}

/// A row of `axis`: `(axis_id, step0, time1_us, n, sub, crc32c, data)`.
pub(crate) type PythonAxis = (i64, i64, i64, u32, PyBackedBytes, u32, PyBackedBytes);

pub(crate) fn axis_row((axis_id, step0, time1_us, n, sub, crc32c, data): PythonAxis) -> AxisRow {
    AxisRow { axis_id, step0, time1_us, n, sub: sub.to_vec(), crc32c, data: data.to_vec() }
}

/// A value with the name of its kind.
pub(crate) fn cell_to_python<'py>(py: Python<'py>, cell: &Cell) -> PyResult<(&'static str, Bound<'py, PyAny>)> {
    Ok(match cell {
        Cell::Null => ("null", py.None().into_bound(py)),
        Cell::F64(value) => ("number", (*value).into_pyobject(py)?.into_any()),
        Cell::I64(value) => ("number", (*value).into_pyobject(py)?.into_any()),
        Cell::Bool(value) => ("bool", (*value).into_pyobject(py)?.to_owned().into_any()),
        Cell::Str(value) => ("string", value.into_pyobject(py)?.into_any()),
        Cell::Hist(value) => ("histogram", PyBytes::new(py, value).into_any()),
        Cell::Json(value) => match Doc::decode(value) {
            Ok(doc) => ("json", doc_to_python(py, &doc)?),
            Err(MsgpackError::TooMany(most)) => {
                ("marker", ("json", format!("a value of more than {most} parts")).into_pyobject(py)?.into_any())
            }
            // Anybody may have sent it: one value that cannot be shown must not hide the others.
            Err(error) => ("marker", ("json", format!("not readable: {error}")).into_pyobject(py)?.into_any()),
        },
        Cell::Marker(kind, text) => ("marker", (kind, text).into_pyobject(py)?.into_any()),
    })
}

/// Reads chunks and their axes, all checksums included; one text per chunk that fails.
#[pyfunction]
pub(crate) fn verify_chunks(py: Python<'_>, chunks: Vec<(Bound<'_, PyTuple>, PythonAxis)>) -> PyResult<Faults> {
    let chunks = chunks.into_iter().map(|(chunk, axis)| Ok((chunk_row(&chunk)?, axis_row(axis))));
    let chunks = chunks.collect::<PyResult<Vec<_>>>()?;
    Ok(py.detach(|| {
        let mut unpacker = Unpacker::new();
        let mut verify = |chunk: &ChunkRow, axis: &AxisRow| {
            let cells = chunk.decode(&mut unpacker)?;
            let rows = axis.decode(&mut unpacker)?.len();
            if rows == cells.len() { Ok(()) } else { Err(ChunkError::Malformed { part: "axis" }) }
        };
        chunks.iter().map(|(chunk, axis)| verify(chunk, axis).err().map(|fault| fault.to_string())).collect()
    }))
}

/// Frames of a run that are not merged yet, decoded once and read often.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct Tail {
    table: RwLock<Table>,
}

impl Tail {
    pub(crate) fn read<T>(&self, reader: impl FnOnce(&Table) -> T) -> T {
        reader(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl Tail {
    #[new]
    fn new() -> Self {
        Self { table: RwLock::new(Table::new()) }
    }

    fn set_writers(&self, writers: Vec<PythonWriter>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for (ordinal, writer) in writers.into_iter().map(writer) {
            table.set_writer(ordinal, writer);
        }
    }

    /// Takes frames until it weighs more than `most_bytes`; one text or None per frame taken.
    fn add_frames(&self, py: Python<'_>, frames: Vec<PythonFrame>, most_bytes: usize) -> Faults {
        py.detach(|| {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let mut faults = Vec::new();
            for (ordinal, frame) in &frames {
                if table.weight_bytes() > most_bytes {
                    break;
                }
                faults.push(table.add_frame(*ordinal, frame).err().map(|fault| fault.to_string()));
            }
            table.settle();
            faults
        })
    }

    /// About how much memory it takes.
    #[getter]
    fn weight_bytes(&self) -> usize {
        self.read(Table::weight_bytes)
    }

    #[getter]
    fn row_count(&self) -> usize {
        self.read(Table::row_count)
    }

    /// The steps of all rows, ascending, each once per label.
    fn row_steps(&self, py: Python<'_>) -> Vec<i64> {
        py.detach(|| {
            self.read(|table| {
                let rows = table.series().iter().enumerate().filter(|(_, series)| series.role == Role::Rows);
                let mut steps: Vec<i64> = rows.flat_map(|(number, _)| table.steps_of(number)).collect();
                steps.sort_unstable();
                steps
            })
        })
    }

    /// Names of all metrics, in order of first appearance.
    fn names(&self) -> Vec<String> {
        self.read(|table| {
            let mut seen = HashSet::new();
            let metrics = table.series().iter().filter(|series| series.role == Role::Metric);
            metrics.filter(|series| seen.insert(series.name.clone())).map(|series| series.name.clone()).collect()
        })
    }

    /// The labels under which a metric is found.
    fn labels(&self, name: &str) -> Vec<String> {
        self.read(|table| table.labels_of(name).into_iter().map(str::to_owned).collect())
    }

    /// How many metrics there are, each label its own.
    fn metric_count(&self) -> usize {
        self.read(|table| table.series().iter().filter(|series| series.role == Role::Metric).count())
    }

    /// Distinct rows, points and the last step of all rows (None: no row). A metric's equal steps count once.
    fn totals(&self, py: Python<'_>) -> (usize, usize, Option<i64>) {
        py.detach(|| {
            self.read(|table| {
                let (mut rows, mut points, mut last) = (0, 0, None);
                for (number, series) in table.series().iter().enumerate() {
                    let steps = table.steps_of(number);
                    match series.role {
                        Role::Rows => {
                            rows += steps.len();
                            last = last.max(steps.last().copied());
                        }
                        Role::Metric => points += steps.len(),
                    }
                }
                (rows, points, last)
            })
        })
    }
}

/// One merge of a run; used by one thread.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct Merge {
    merge: Mutex<merge::Merge>,
}

/// Axes with their number of chunks, chunks, superseded `(ordinal, key_id, points, sum_hash)`, last `(key_id, ordinal, value)`.
type Merged<'py> = (
    Vec<Bound<'py, PyTuple>>,
    Vec<Bound<'py, PyTuple>>,
    Vec<(u32, i64, u64, u64)>,
    Vec<(i64, u32, Bound<'py, PyBytes>)>,
);

#[pymethods]
impl Merge {
    #[new]
    fn new() -> Self {
        Self { merge: Mutex::new(merge::Merge::new()) }
    }

    fn set_writers(&self, writers: Vec<PythonWriter>) {
        let mut merge = lock(&self.merge);
        for (ordinal, writer) in writers.into_iter().map(writer) {
            merge.set_writer(ordinal, writer);
        }
    }

    /// Takes frames until they weigh more than `most_bytes` (the first one always); per frame taken its rows, or why it has none.
    fn add_frames(&self, py: Python<'_>, frames: Vec<PythonFrame>, most_bytes: usize) -> Vec<(usize, Option<String>)> {
        py.detach(|| {
            let mut merge = lock(&self.merge);
            let mut taken = Vec::new();
            for (ordinal, frame) in &frames {
                if merge.table().weight_bytes() > most_bytes {
                    break;
                }
                taken.push(match merge.add_frame(*ordinal, frame) {
                    Ok(rows) => (rows, None),
                    Err(fault) => (0, Some(fault.to_string())),
                });
            }
            taken
        })
    }

    /// `(role, label, name, values, first step, last step)` of every series, by number.
    fn series(&self, py: Python<'_>) -> Vec<(u8, String, String, usize, i64, i64)> {
        py.detach(|| {
            let merge = lock(&self.merge);
            let table = merge.table();
            let summary = |(number, span): (usize, Option<(i64, i64)>)| {
                let (step0, step1) = span.unwrap_or_default();
                let one: Option<&Series> = table.series().get(number);
                let (label, name) = one.map(|one| (one.label.clone(), one.name.clone())).unwrap_or_default();
                (one.map_or(0, |one| role_number(one.role)), label, name, table.value_count(number), step0, step1)
            };
            table.spans().into_iter().enumerate().map(summary).collect()
        })
    }

    /// Which of a series' stored chunks, ascending `(step0, step1)`, new values fall into.
    fn touch(&self, series: usize, ranges: Vec<(i64, i64)>) -> Vec<bool> {
        lock(&self.merge).touch(series, &ranges)
    }

    /// Stored chunks that stay.
    fn leave(&self, series: usize, ranges: Vec<(i64, i64)>) {
        let mut merge = lock(&self.merge);
        ranges.into_iter().for_each(|range| merge.leave(series, range));
    }

    /// Stored chunks to be replaced: `(series, chunk row, axis row)`.
    fn add_chunks(&self, py: Python<'_>, chunks: Vec<(usize, Bound<'_, PyTuple>, PythonAxis)>) -> PyResult<Faults> {
        let chunks = chunks.into_iter().map(|(series, chunk, axis)| Ok((series, chunk_row(&chunk)?, axis_row(axis))));
        let chunks = chunks.collect::<PyResult<Vec<_>>>()?;
        Ok(py.detach(|| {
            let mut merge = lock(&self.merge);
            let faults = chunks.iter().map(|(series, chunk, axis)| {
                merge.add_chunk(*series, chunk, axis).err().map(|fault| fault.to_string())
            });
            faults.collect()
        }))
    }

    fn finish<'py>(&self, py: Python<'py>, key_ids: Vec<i64>, next_axis_id: i64) -> PyResult<Merged<'py>> {
        let merged = py.detach(|| lock(&self.merge).finish(&key_ids, next_axis_id));
        let axes = merged.axes.iter().map(|(axis, chunks)| {
            let items: [Bound<'py, PyAny>; 8] = [
                axis.axis_id.into_pyobject(py)?.into_any(),
                axis.step0.into_pyobject(py)?.into_any(),
                axis.time1_us.into_pyobject(py)?.into_any(),
                axis.n.into_pyobject(py)?.into_any(),
                PyBytes::new(py, &axis.sub).into_any(),
                axis.crc32c.into_pyobject(py)?.into_any(),
                PyBytes::new(py, &axis.data).into_any(),
                chunks.into_pyobject(py)?.into_any(),
            ];
            PyTuple::new(py, items)
        });
        Ok((
            axes.collect::<PyResult<_>>()?,
            merged.chunks.iter().map(|chunk| chunk_tuple(py, chunk)).collect::<PyResult<_>>()?,
            merged.superseded.iter().map(|lost| (lost.writer, lost.key_id, lost.points, lost.sum_hash)).collect(),
            merged.last.iter().map(|(key_id, writer, value)| (*key_id, *writer, PyBytes::new(py, value))).collect(),
        ))
    }
}

/// One window of a scan; used by one thread.
#[pyclass(frozen, module = "runferry._native")]
pub(crate) struct Scan {
    scan: Mutex<scan::Scan>,
}

#[pymethods]
impl Scan {
    /// `names` None: all metrics, and rows without values. `histograms`: only histograms of the single name.
    #[new]
    fn new(tail: &Tail, names: Option<Vec<String>>, histograms: bool, window: (i64, i64)) -> Self {
        let wanted = match names {
            None => Wanted::All,
            Some(names) if histograms => Wanted::Histograms(names.into_iter().next().unwrap_or_default()),
            Some(names) => Wanted::Names(names.into_iter().collect()),
        };
        let window = Window { min: window.0, max: window.1 };
        Self { scan: Mutex::new(tail.read(|table| scan::Scan::new(table, wanted, window))) }
    }

    /// `(role, name, chunk row, axis row)`; data None: only steps and kinds are asked.
    fn add_chunks(
        &self,
        py: Python<'_>,
        chunks: Vec<(u8, String, Bound<'_, PyTuple>, PythonAxis)>,
    ) -> PyResult<Faults> {
        let chunks = chunks
            .into_iter()
            .map(|(number, name, chunk, axis)| Ok((role(number)?, name, chunk_row(&chunk)?, axis_row(axis))));
        let chunks = chunks.collect::<PyResult<Vec<_>>>()?;
        Ok(py.detach(|| {
            let mut scan = lock(&self.scan);
            let faults = chunks.iter().map(|(role, name, chunk, axis)| {
                scan.add_chunk(*role, name, chunk, axis).err().map(|fault| fault.to_string())
            });
            faults.collect()
        }))
    }

    fn steps(&self, py: Python<'_>) -> Vec<i64> {
        py.detach(|| lock(&self.scan).steps())
    }

    fn frames<'py>(
        &self,
        py: Python<'py>,
        run_id: [u8; 16],
        first_seq: u64,
        steps: Vec<i64>,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let frames = py.detach(|| lock(&self.scan).frames(run_id, first_seq, &steps));
        let frames = frames.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(frames.iter().map(|frame| PyBytes::new(py, frame)).collect())
    }

    /// `(step, time_us, value)` of the histograms at some steps.
    fn histograms<'py>(&self, py: Python<'py>, keep: Vec<i64>) -> Vec<(i64, i64, Bound<'py, PyBytes>)> {
        let found = py.detach(|| lock(&self.scan).histograms(&keep));
        found.iter().map(|(step, time_us, value)| (*step, *time_us, PyBytes::new(py, value))).collect()
    }
}
