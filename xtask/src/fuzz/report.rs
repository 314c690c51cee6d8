//! What the searches say, for people.
use crate::error::{Error, Kind, Result};

/// How a search went that broke nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Inputs tried.
    executions: u64,
    /// Inputs kept because they reached something new.
    found: u64,
    peak_mib: u64,
}

impl Outcome {
    /// Reads what libFuzzer prints last with `-print_final_stats=1`.
    pub(super) fn read(said: &str) -> Option<Self> {
        let figure = |name: &str| {
            let mut lines = said.lines().rev();
            let rest = lines.find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name))?;
            rest.trim_start_matches(':').trim().parse().ok()
        };
        Some(Self {
            executions: figure("number_of_executed_units")?,
            found: figure("new_units_added")?,
            peak_mib: figure("peak_rss_mb")?,
        })
    }
}

/// Prints a table by name; fails if one of the searches did.
pub(super) fn conclude(mut outcomes: Vec<(String, Result<Outcome>)>) -> Result<()> {
    outcomes.sort_by(|a, b| a.0.cmp(&b.0));
    println!("{:24} {:>12} {:>6} {:>8}", "TARGET", "EXECUTIONS", "NEW", "PEAK MiB");
    let mut broken = Vec::new();
    for (target, outcome) in outcomes {
        match outcome {
            Ok(o) => println!("{target:24} {:>12} {:>6} {:>8}", o.executions, o.found, o.peak_mib),
            Err(why) => {
                println!("{target:24} {}", hull_errors::chain(&why));
                broken.push(target);
            }
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Error::new(Kind::Failed, format!("fuzz {}", broken.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_figures_count() {
        let said = "#2 INITED\nDone 12 runs\nstat::number_of_executed_units: 12\n\
                    stat::average_exec_per_sec:     6\nstat::new_units_added:          3\n\
                    stat::slowest_unit_time_sec:    0\nstat::peak_rss_mb:              41\n";
        assert_eq!(Outcome::read(said), Some(Outcome { executions: 12, found: 3, peak_mib: 41 }));
        assert_eq!(Outcome::read("#2 INITED"), None);
    }
}
