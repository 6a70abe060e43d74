//! What latencies come to: counts, extremes and quantiles, by group and by step of time.
//!
//! Owns a [`Cell`], the figures of one group in one step, and a [`Tally`], the cells of many. Both can be added
//! up, so a tally of many segments is the sum of theirs, in any order. Leaves to `query` and `sidecar` which
//! samples are counted under which group.
//!
//! | count | samples that have |
//! | --- | --- |
//! | `samples` | been counted at all |
//! | `errors` | an error |
//! | `no_data` | neither a latency nor an error: the page was paused |
//! | `latencies` | a latency |
//!
//! Counts, sums, minima and maxima are exact. Quantiles are by rank (the least value that so many others do not
//! exceed) and within [`QUANTILE_ERROR`] of the value of that rank, from 1 µs to 1 h: latencies are counted in
//! the bins of an HdrHistogram with two significant digits.
//!
//! Latencies are in milliseconds, bins in microseconds, steps in milliseconds since the epoch.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use hdrhistogram::Histogram;

/// The most that a quantile is off, as a part of the value.
pub const QUANTILE_ERROR: f64 = 0.01;

/// The largest latency that has a bin of its own, an hour in microseconds.
const BIN_MAX: u64 = 3_600_000_000;

/// Significant digits of a bin: 128 bins to an octave, so that each is within 1/128 of its neighbours.
const DIGITS: u8 = 2;

/// A sketch that is a list of more bins than this, and has taken more latencies than that, goes on with an array of
/// all bins: some 12 KiB, and quicker.
const SPARSE_BINS_MAX: usize = 48;
const SPARSE_LATENCIES_MAX: u32 = 1024;

/// How often latencies have lain in which bin.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    /// The least value of each bin in microseconds, ascending, and its count, which is not 0.
    sparse: Vec<(u32, u64)>,
    /// Latencies that have come into the list one by one.
    sparse_latencies: u32,
    /// Those that have come since, where they have been many.
    dense: Option<Box<Histogram<u64>>>,
}

fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new(DIGITS).expect("two digits are allowed");
    histogram.auto(true);
    histogram
}

impl Sketch {
    fn record(&mut self, bins: &Histogram<u64>, latency_ms: f64) {
        // To the nearest; a cast saturates, so that what is below 0 is 0.
        let micros = ((latency_ms * 1000.0 + 0.5) as u64).min(BIN_MAX);
        if let Some(dense) = &mut self.dense {
            return dense.record(micros).expect("it grows as it has to");
        }
        let bin = bins.lowest_equivalent(micros) as u32;
        match self.sparse.binary_search_by_key(&bin, |&(bin, _)| bin) {
            Ok(at) => self.sparse[at].1 += 1,
            Err(at) => self.sparse.insert(at, (bin, 1)),
        }
        self.sparse_latencies += 1;
        if self.sparse.len() > SPARSE_BINS_MAX && self.sparse_latencies > SPARSE_LATENCIES_MAX {
            self.dense = Some(Box::new(histogram()));
        }
    }

    /// Turns what is dense into a list, which takes less room.
    fn compact(&mut self) {
        if let Some(dense) = self.dense.take() {
            let bins = dense.iter_recorded().map(|bin| {
                let least = dense.lowest_equivalent(bin.value_iterated_to()) as u32;
                (least, bin.count_at_value())
            });
            self.add_bins(bins.collect());
        }
        self.sparse_latencies = 0;
        self.sparse.shrink_to_fit();
    }

    fn add(&mut self, other: Sketch) {
        self.add_bins(other.into_bins());
    }

    fn add_bins(&mut self, other: Vec<(u32, u64)>) {
        if self.sparse.is_empty() {
            self.sparse = other;
            return;
        }
        let mine = mem::take(&mut self.sparse);
        self.sparse.reserve_exact(mine.len().max(other.len()));
        let mut other = other.into_iter().peekable();
        for (bin, count) in mine {
            while let Some(before) = other.next_if(|&(at, _)| at < bin) {
                self.sparse.push(before);
            }
            let same = other.next_if(|&(at, _)| at == bin);
            let more = same.map_or(0, |(_, count)| count);
            self.sparse.push((bin, count + more));
        }
        self.sparse.extend(other);
    }

    /// The bins, by their least values in microseconds, with their counts.
    pub fn into_bins(mut self) -> Vec<(u32, u64)> {
        self.compact();
        self.sparse
    }

    /// Of bins as [`Sketch::into_bins`] gives them; `None` if these are none.
    pub fn from_bins(bins: Vec<(u32, u64)>) -> Option<Sketch> {
        let is_ascending = bins.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let are_counted = bins
            .iter()
            .all(|&(bin, count)| count > 0 && u64::from(bin) <= BIN_MAX);
        (is_ascending && are_counted).then_some(Sketch {
            sparse: bins,
            ..Sketch::default()
        })
    }

    /// How many latencies there are.
    fn count(&self) -> u64 {
        let dense = self.dense.as_ref().map_or(0, |dense| dense.len());
        dense + self.sparse.iter().map(|&(_, count)| count).sum::<u64>()
    }

    fn heap_bytes(&self) -> usize {
        let dense = self.dense.as_ref().map_or(0, |dense| {
            mem::size_of::<Histogram<u64>>() + dense.distinct_values() * mem::size_of::<u64>()
        });
        dense + self.sparse.capacity() * mem::size_of::<(u32, u64)>()
    }
}

/// A sample, as far as it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// In milliseconds.
    pub latency: Option<f64>,
    /// Whether it names an error.
    pub is_error: bool,
}

/// The figures of one group in one step.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Samples.
    pub samples: u64,
    /// Those with an error.
    pub errors: u64,
    /// Those with neither error nor latency.
    pub no_data: u64,
    /// Of the latencies.
    pub sum: f64,
    /// The least latency; infinite if there is none.
    pub min: f64,
    /// The greatest latency; infinite if there is none.
    pub max: f64,
    /// The latencies.
    pub latencies: Sketch,
}

impl Default for Cell {
    fn default() -> Cell {
        Cell {
            samples: 0,
            errors: 0,
            no_data: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            latencies: Sketch::default(),
        }
    }
}

impl Cell {
    fn record(&mut self, bins: &Histogram<u64>, sample: Outcome) {
        self.samples += 1;
        self.errors += u64::from(sample.is_error);
        let Some(latency) = sample.latency else {
            self.no_data += u64::from(!sample.is_error);
            return;
        };
        self.sum += latency;
        self.min = self.min.min(latency);
        self.max = self.max.max(latency);
        self.latencies.record(bins, latency);
    }

    /// Adds the figures of other samples.
    pub fn add(&mut self, other: Cell) {
        self.samples += other.samples;
        self.errors += other.errors;
        self.no_data += other.no_data;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.latencies.add(other.latencies);
    }

    /// The quantiles of its latencies, in the order asked for; `None` if it has none.
    pub fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> Option<[f64; N]> {
        let count = self.latencies.count();
        if count == 0 {
            return None;
        }
        let bins = histogram();
        let sorted = self.latencies.clone().into_bins();
        Some(quantiles.map(|quantile| {
            let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count);
            let mut before = 0;
            let found = sorted.iter().find(|&&(_, count)| {
                before += count;
                before >= rank
            });
            let &(bin, _) = found.expect("a rank is at most the count");
            let middle = bins.median_equivalent(u64::from(bin)) as f64 / 1000.0;
            middle.clamp(self.min, self.max)
        }))
    }

    /// The mean of its latencies, if it has any.
    pub fn mean(&self) -> Option<f64> {
        let count = self.latencies.count();
        (count > 0).then(|| self.sum / count as f64)
    }
}

/// Says when so much text has been counted that it is time to look at what that has come to. Not by lines: one of them
/// may name tens of thousands of groups.
#[derive(Debug, Default)]
pub struct Pace {
    bytes: usize,
}

impl Pace {
    /// Bytes of text between two looks, but for one line that may be longer.
    const BYTES_MAX: usize = 256 << 10;

    /// Whether it is time, with a line of this length gone by.
    pub fn is_due(&mut self, line_bytes: usize) -> bool {
        // A line of no length is work as well.
        self.bytes += line_bytes + 64;
        let is_due = self.bytes >= Self::BYTES_MAX;
        if is_due {
            self.bytes = 0;
        }
        is_due
    }
}

/// What a group is called; samples whose reports name none are together. Rows of many steps share it.
pub type GroupName = Option<Arc<str>>;

/// Cells by group and step.
#[derive(Debug)]
pub struct Tally {
    /// The cells of each group, by the starts of their steps, ascending.
    named: HashMap<Box<str>, Vec<(u64, Cell)>>,
    unnamed: Vec<(u64, Cell)>,
    /// An empty histogram knows the bins.
    bins: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            named: HashMap::new(),
            unnamed: Vec::new(),
            bins: histogram(),
        }
    }
}

impl Tally {
    /// Counts samples of one group and step.
    pub fn record(
        &mut self,
        group: Option<&str>,
        step_ms: u64,
        samples: impl IntoIterator<Item = Outcome>,
    ) {
        let steps = steps_of(&mut self.named, &mut self.unnamed, group);
        let cell = cell_of(steps, step_ms);
        for sample in samples {
            cell.record(&self.bins, sample);
        }
    }

    /// Adds a cell to that of the same group and step.
    pub fn add_cell(&mut self, group: Option<&str>, step_ms: u64, cell: Cell) {
        let steps = steps_of(&mut self.named, &mut self.unnamed, group);
        cell_of(steps, step_ms).add(cell);
    }

    /// Adds all of another tally.
    pub fn add(&mut self, other: Tally) {
        for (group, steps) in other.into_groups() {
            for (step_ms, cell) in steps {
                self.add_cell(group.as_deref(), step_ms, cell);
            }
        }
    }

    /// Whether anything of a group of this name has been counted.
    pub fn has_group(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// Samples that have been counted in groups of these names.
    pub fn samples(&self, is_asked_for: impl Fn(Option<&str>) -> bool) -> u64 {
        let named = self
            .named
            .iter()
            .map(|(name, steps)| (Some(&**name), steps));
        let groups = named.chain([(None, &self.unnamed)]);
        let cells = groups
            .filter(|(name, _)| is_asked_for(*name))
            .flat_map(|(_, steps)| steps);
        cells.map(|(_, cell)| cell.samples).sum()
    }

    /// Gives back what its cells do not need while nothing is recorded.
    pub fn compact(&mut self) {
        let cells = self.named.values_mut().chain([&mut self.unnamed]).flatten();
        for (_, cell) in cells {
            cell.latencies.compact();
        }
    }

    /// Bytes that its cells and the names of its groups take, within a few of each.
    pub fn bytes(&self) -> usize {
        let named = self.named.iter();
        let named = named.map(|(name, steps)| name.len() + bytes_of(steps));
        // A table has a byte more for each of its places, and an eighth of these are kept free.
        let place = mem::size_of::<(Box<str>, Vec<(u64, Cell)>)>() + 1;
        let places = self.named.capacity() / 7 * 8;
        named.sum::<usize>() + places * place + bytes_of(&self.unnamed)
    }

    /// The groups with their cells by step, in no order of the groups.
    pub fn into_groups(self) -> impl Iterator<Item = (GroupName, Vec<(u64, Cell)>)> {
        let unnamed = (!self.unnamed.is_empty()).then_some((None, self.unnamed));
        let named = self.named.into_iter();
        named
            .map(|(name, steps)| (Some(Arc::from(name)), steps))
            .chain(unnamed)
    }
}

fn bytes_of(steps: &Vec<(u64, Cell)>) -> usize {
    let heap_bytes = steps.iter().map(|(_, cell)| cell.latencies.heap_bytes());
    steps.capacity() * mem::size_of::<(u64, Cell)>() + heap_bytes.sum::<usize>()
}

fn steps_of<'t>(
    named: &'t mut HashMap<Box<str>, Vec<(u64, Cell)>>,
    unnamed: &'t mut Vec<(u64, Cell)>,
    group: Option<&str>,
) -> &'t mut Vec<(u64, Cell)> {
    let Some(group) = group else {
        return unnamed;
    };
    // Most are known, and a name is made for those that are not.
    if !named.contains_key(group) {
        named.insert(group.into(), Vec::new());
    }
    named.get_mut(group).expect("it has been made")
}

fn cell_of(steps: &mut Vec<(u64, Cell)>, step_ms: u64) -> &mut Cell {
    let at = match steps.last() {
        // Lines come in the order of time, but for those of other segments.
        Some(&(last, _)) if last == step_ms => steps.len() - 1,
        _ => match steps.binary_search_by_key(&step_ms, |&(start, _)| start) {
            Ok(at) => at,
            Err(at) => {
                // Most groups of many have one step; a vector would begin with four.
                if steps.is_empty() {
                    steps.reserve_exact(1);
                }
                steps.insert(at, (step_ms, Cell::default()));
                at
            }
        },
    };
    &mut steps[at].1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(ms: f64) -> Outcome {
        Outcome {
            latency: Some(ms),
            is_error: false,
        }
    }

    fn cell(latencies: impl IntoIterator<Item = f64>) -> Cell {
        let mut cell = Cell::default();
        let bins = histogram();
        for ms in latencies {
            cell.record(&bins, latency(ms));
        }
        cell
    }

    #[test]
    fn counts() {
        let mut cell = Cell::default();
        let bins = histogram();
        for (latency, is_error) in [
            (Some(2.0), false),
            (Some(4.5), true),
            (None, true),
            (None, false),
            (None, false),
        ] {
            cell.record(&bins, Outcome { latency, is_error });
        }
        assert_eq!((cell.samples, cell.errors, cell.no_data), (5, 2, 2));
        assert_eq!((cell.sum, cell.min, cell.max), (6.5, 2.0, 4.5));
        assert_eq!(cell.mean(), Some(3.25));
        assert_eq!(Cell::default().mean(), None);
        assert_eq!(Cell::default().quantiles([0.5]), None);
    }

    #[test]
    fn quantiles_are_within_their_error() {
        #[track_caller]
        fn check(latencies: Vec<f64>) {
            let cell = cell(latencies.iter().copied());
            let mut sorted = latencies;
            sorted.sort_by(f64::total_cmp);
            let asked = [0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0];
            let found = cell.quantiles(asked).unwrap();
            for (quantile, found) in asked.into_iter().zip(found) {
                let rank = (quantile * sorted.len() as f64).ceil() as usize;
                let exact = sorted[rank.max(1) - 1];
                // Half a microsecond for the unit of the bins.
                let error = (found - exact).abs();
                assert!(
                    error <= exact.abs() * QUANTILE_ERROR + 0.0005,
                    "{quantile}: {found}, {exact}"
                );
            }
        }
        check(vec![41.0]);
        check((1..=1000).map(f64::from).collect());
        check((0..500).map(|n| 1.03_f64.powi(n) * 0.001).collect());
        check(
            (0..10_000)
                .map(|n| f64::from(n * 7919 % 10_007) / 9.0)
                .collect(),
        );
        // Beyond an hour, and below nothing, the extremes are right.
        let cell = cell([-5.0, 1e9]);
        assert_eq!(cell.quantiles([0.1, 1.0]), Some([0.0, 3_598_712.832]));
        assert_eq!((cell.min, cell.max), (-5.0, 1e9));
    }

    /// Whichever way the same samples are added up.
    #[test]
    fn sums_are_the_same_in_any_order() {
        let latencies: Vec<f64> = (0..3000).map(|n| f64::from(n * 7919 % 5003)).collect();
        let whole = cell(latencies.iter().copied());
        for parts in [1, 2, 7, 1500] {
            let mut sum = Cell::default();
            for part in latencies.chunks(latencies.len() / parts).rev() {
                let mut part = cell(part.iter().copied());
                if parts % 2 == 0 {
                    part.latencies.compact();
                }
                sum.add(part);
            }
            assert_eq!((sum.samples, sum.sum), (whole.samples, whole.sum));
            let bins = sum.latencies.into_bins();
            assert_eq!(bins, whole.latencies.clone().into_bins());
            let again = Sketch::from_bins(bins.clone()).unwrap();
            assert_eq!(again.into_bins(), bins);
        }
    }

    #[test]
    fn what_is_no_sketch() {
        for bins in [
            vec![(1, 0)],
            vec![(2, 1), (1, 1)],
            vec![(1, 1), (1, 1)],
            vec![(u32::MAX, 1)],
        ] {
            assert!(Sketch::from_bins(bins.clone()).is_none(), "{bins:?}");
        }
    }

    #[test]
    fn a_look_is_due_by_bytes() {
        let mut pace = Pace::default();
        assert!(pace.is_due(1 << 20));
        assert!(!pace.is_due(200 << 10));
        assert!(pace.is_due(100 << 10));
        assert_eq!((0..10_000).filter(|_| pace.is_due(0)).count(), 2);
    }

    #[test]
    fn groups_and_steps() {
        let mut tally = Tally::default();
        tally.record(Some("b"), 60_000, [latency(1.0)]);
        tally.record(None, 0, [latency(2.0), latency(3.0)]);
        tally.record(Some("b"), 0, [latency(4.0)]);
        let mut other = Tally::default();
        other.record(Some("b"), 0, [latency(5.0)]);
        other.record(Some("a"), 120_000, []);
        tally.add(other);
        tally.compact();
        let mut groups: Vec<_> = tally.into_groups().collect();
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        let sums = groups.iter().map(|(name, steps)| {
            let steps = steps.iter().map(|(start, cell)| (*start, cell.sum));
            (name.as_deref(), steps.collect::<Vec<_>>())
        });
        let expected = [
            (None, vec![(0, 5.0)]),
            (Some("a"), vec![(120_000, 0.0)]),
            (Some("b"), vec![(0, 9.0), (60_000, 1.0)]),
        ];
        assert_eq!(sums.collect::<Vec<_>>(), expected);
    }
}
