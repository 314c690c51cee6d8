//! VM exits by reason, as a kernel histogram counts them.
use std::collections::BTreeMap;

use super::reasons;

/// Keys of a histogram's entry, in their order, and how often they came.
pub(super) type Table = BTreeMap<Vec<u64>, u64>;

/// Until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exits {
    pub(super) first_byte: Counts,
    pub(super) total: Counts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// By instruction set and reason.
    pub(super) to_kvm: Table,
    /// By reason; those that the VMM saw.
    pub(super) to_vmm: Table,
}

impl Exits {
    /// The one with the median count to the first byte; `None` of none.
    pub(super) fn median(mut counted: Vec<Self>) -> Option<Self> {
        counted.sort_by_key(|exits| exits.first_byte.all());
        let middle = counted.len() / 2;
        (middle < counted.len()).then(|| counted.swap_remove(middle))
    }
}

impl Counts {
    pub(super) fn all(&self) -> u64 {
        self.to_kvm.values().sum()
    }

    pub(super) fn to_user_space(&self) -> u64 {
        self.to_vmm.values().sum()
    }

    /// The most frequent first.
    pub(super) fn by_reason(&self) -> Vec<(String, u64)> {
        let name = |keys: &Vec<u64>| reasons::of_processor(keys[0], keys[1]);
        sorted(self.to_kvm.iter().map(|(keys, count)| (name(keys), *count)).collect())
    }

    /// Likewise, of those that the VMM saw.
    pub(super) fn by_user_reason(&self) -> Vec<(String, u64)> {
        sorted(self.to_vmm.iter().map(|(keys, count)| (reasons::of_kvm(keys[0]), *count)).collect())
    }
}

fn sorted(mut table: Vec<(String, u64)>) -> Vec<(String, u64)> {
    table.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    table
}

/// Reads lines like `{ isa:          2, exit_reason:       1024 } hitcount:        321`. `None` if the
/// kernel dropped entries or the lines do not add up to its own sum.
pub(super) fn parse(hist: &str) -> Option<Table> {
    let (mut table, mut hits, mut dropped) = (Table::new(), None, None);
    for line in hist.lines().map(str::trim) {
        if let Some(entry) = line.strip_prefix("{ ") {
            let (keys, count) = entry.split_once("} hitcount:")?;
            table.insert(keys.split(',').map(value).collect::<Option<_>>()?, count.trim().parse().ok()?);
        } else if let Some(number) = line.strip_prefix("Hits: ") {
            hits = number.parse::<u64>().ok();
        } else if let Some(number) = line.strip_prefix("Dropped: ") {
            dropped = number.parse::<u64>().ok();
        }
    }
    (hits? == table.values().sum::<u64>() && dropped? == 0).then_some(table)
}

/// The number in `exit_reason:       1024`.
fn value(key: &str) -> Option<u64> {
    key.split_once(':')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIST: &str = "\
# event histogram
#
# trigger info: hist:keys=isa,exit_reason:vals=hitcount:sort=hitcount:size=2048 [paused]
#

{ isa:          2, exit_reason:        120 } hitcount:          3
{ isa:          2, exit_reason:       1024 } hitcount:        321

Totals:
    Hits: 324
    Entries: 2
    Dropped: 0
";

    #[test]
    fn a_histogram_is_read() {
        let table = parse(HIST).unwrap();
        assert_eq!(table, Table::from([(vec![2, 120], 3), (vec![2, 1024], 321)]));
        let counts = Counts { to_kvm: table, to_vmm: Table::from([(vec![2], 9)]) };
        assert_eq!((counts.all(), counts.to_user_space()), (324, 9));
        assert_eq!(counts.by_reason(), [("npf".to_owned(), 321), ("hlt".to_owned(), 3)]);
        assert_eq!(counts.by_user_reason(), [("io".to_owned(), 9)]);
    }

    #[test]
    fn the_median_is_one_of_the_runs() {
        let exits = |first, total| {
            let counts =
                |count| Counts { to_kvm: Table::from([(vec![2, 0x400], count)]), to_vmm: Table::new() };
            Exits { first_byte: counts(first), total: counts(total) }
        };
        let counted = [exits(9, 1), exits(5, 7), exits(2, 9)];
        assert_eq!(Exits::median(counted.to_vec()), Some(exits(5, 7)));
        assert_eq!(Exits::median(Vec::new()), None);
    }

    #[test]
    fn a_histogram_that_lost_something_is_refused() {
        assert_eq!(parse(&HIST.replace("Dropped: 0", "Dropped: 1")), None);
        assert_eq!(parse(&HIST.replace("Hits: 324", "Hits: 325")), None);
        assert_eq!(parse(&HIST.replace("1024", "0x400")), None);
        assert_eq!(parse(""), None);
    }
}
