//! What was measured.
use std::time::Duration;

use super::exits::Exits;
use super::memory::Memory;
use super::options::Host;

#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) host: Host,
    pub(super) runs: u32,
    pub(super) versions: Vec<(&'static str, String)>,
    pub(super) hull: Measured,
    pub(super) qemu: Measured,
}

/// One contender's.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) first_byte: Spread,
    pub(super) total: Spread,
    /// `None` where the host's kernel cannot count.
    pub(super) exits: Option<Exits>,
    pub(super) memory: Memory,
    pub(super) kernel_bytes_copied: u64,
}

/// Times of several runs, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// # Panics
    /// No times.
    pub(super) fn of(times: &[Duration]) -> Self {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let median = match times.len() % 2 {
            1 => times[middle],
            _ => f64::midpoint(times[middle - 1], times[middle]),
        };
        Self { median, min: times[0], max: times[times.len() - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let check = |times: &[u64], median, min, max| {
            let times: Vec<Duration> = times.iter().map(|ms| Duration::from_millis(*ms)).collect();
            assert_eq!(Spread::of(&times), Spread { median, min, max });
        };
        check(&[5, 1, 9], 5.0, 1.0, 9.0);
        check(&[4, 1, 2, 9], 3.0, 1.0, 9.0);
        check(&[7], 7.0, 7.0, 7.0);
    }
}
