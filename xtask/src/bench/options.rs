//! The command line of `cargo xtask bench`, and what its outer side tells the inner one.
use std::path::PathBuf;

use crate::error::{Result, usage};

/// Timed runs of each contender where nobody says how many.
const RUNS: u32 = 5;

/// More is waiting without learning anything.
const RUNS_MAX: u32 = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Start(Wishes),
    /// Of this layer, or of one that is made for it.
    Convert {
        json: bool,
        layer: Option<PathBuf>,
    },
    /// TCP through a guest's network device.
    Net {
        json: bool,
    },
    /// Not for people: measure here and now.
    Inside(Job),
    InsideNet {
        host: Host,
        programs: PathBuf,
        json: bool,
    },
}

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) json: bool,
    pub(super) runs: u32,
}

/// Where the figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// The emulated host, whose clock counts instructions.
    Lab,
    Native,
}

/// Everything that the inner side has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) json: bool,
    pub(super) runs: u32,
    pub(super) host: Host,
    /// The folder of an installation.
    pub(super) programs: PathBuf,
}

impl Host {
    pub(super) fn name(self) -> &'static str {
        match self {
            Host::Lab => "lab-icount",
            Host::Native => "native",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let known = [Host::Lab, Host::Native].into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| usage("bench inside needs a host"))
    }
}

impl Order {
    pub(super) fn parse(arguments: &[String]) -> Result<Self> {
        match arguments.split_first() {
            Some((what, options)) if what == "start" => Wishes::parse(options).map(Order::Start),
            Some((what, options)) if what == "convert" => {
                let json = options.first().is_some_and(|word| word == "--json");
                match &options[usize::from(json)..] {
                    [] => Ok(Order::Convert { json, layer: None }),
                    [path] if !path.starts_with('-') => Ok(Order::Convert { json, layer: Some(path.into()) }),
                    _ => Err(usage("bench convert takes --json and one archive")),
                }
            }
            Some((what, options)) if what == "net" => Ok(Order::Net { json: only_json(options)? }),
            Some((what, [host, programs, options @ ..])) if what == "inside" => {
                Ok(Order::Inside(Wishes::parse(options)?.on(Host::parse(host)?, programs.into())))
            }
            Some((what, [host, programs, options @ ..])) if what == "inside-net" => {
                let (host, programs) = (Host::parse(host)?, programs.into());
                Ok(Order::InsideNet { host, programs, json: only_json(options)? })
            }
            Some((what, _)) => Err(usage(format_args!("bench knows start, convert and net, not {what}"))),
            None => Err(usage("bench needs to know what: cargo xtask bench start, convert or net")),
        }
    }
}

fn only_json(options: &[String]) -> Result<bool> {
    match options {
        [] => Ok(false),
        [word] if word == "--json" => Ok(true),
        _ => Err(usage("bench net takes --json and nothing else")),
    }
}

impl Wishes {
    fn parse(options: &[String]) -> Result<Self> {
        let mut wishes = Self { json: false, runs: RUNS };
        let mut words = options.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => wishes.json = true,
                "--runs" => {
                    let number = words.next().and_then(|text| text.parse().ok());
                    let number = number.filter(|runs| (1..=RUNS_MAX).contains(runs));
                    wishes.runs = number
                        .ok_or_else(|| usage(format_args!("--runs needs a number from 1 to {RUNS_MAX}")))?;
                }
                _ => return Err(usage(format_args!("bench start does not know {word}"))),
            }
        }
        Ok(wishes)
    }

    pub(super) fn on(self, host: Host, programs: PathBuf) -> Job {
        Job { json: self.json, runs: self.runs, host, programs }
    }
}

impl Job {
    /// The arguments that [`Order::parse`] turns into this job again.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = ["bench", "inside", self.host.name()].map(str::to_owned).to_vec();
        words.extend([self.programs.display().to_string(), "--runs".into(), self.runs.to_string()]);
        words.extend(self.json.then(|| "--json".to_owned()));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn parse(line: &str) -> Result<Order> {
        Order::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn wishes_are_read() {
        let check = |line, json, runs| {
            assert_eq!(parse(line).unwrap(), Order::Start(Wishes { json, runs }), "{line}");
        };
        check("start", false, RUNS);
        check("start --json", true, RUNS);
        check("start --runs 3", false, 3);
    }

    #[test]
    fn the_network_is_measured_with_or_without_json() {
        assert_eq!(parse("net").unwrap(), Order::Net { json: false });
        assert_eq!(parse("net --json").unwrap(), Order::Net { json: true });
        let want = Order::InsideNet { host: Host::Lab, programs: "/p".into(), json: true };
        assert_eq!(parse("inside-net lab-icount /p --json").unwrap(), want);
        assert!(parse("net --runs 3").is_err() && parse("inside-net here /p").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["", "stop", "start --runs", "start --runs 0", "start --runs 9999", "inside here /bin"] {
            assert_eq!(*parse(line).unwrap_err().kind(), Kind::Usage, "{line}");
        }
    }

    #[test]
    fn a_job_survives_its_words() {
        for json in [true, false] {
            let job = Wishes { json, runs: 7 }.on(Host::Lab, "/t/release".into());
            assert_eq!(Order::parse(&job.words()[1..]).unwrap(), Order::Inside(job));
        }
    }
}
