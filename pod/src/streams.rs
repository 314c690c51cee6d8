//! How an app's standard streams are connected: what `--stdin`, `--stdout` and `--stderr` say, kept as the
//! annotations of the app that rkt kept them as.

use std::str::FromStr;

use crate::manifest::RuntimeApp;
use crate::{Error, Kind};

/// The annotations of standard input, output and error.
pub const ANNOTATIONS: [&str; 3] =
    ["coreos.com/rkt/stage2/stdin", "coreos.com/rkt/stage2/stdout", "coreos.com/rkt/stage2/stderr"];

/// Where an app reads from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// The first app of a pod has the standard input of whoever runs it, others have none.
    #[default]
    Usual,
    /// Nothing.
    Null,
    /// Whoever attaches to the app, as often as somebody does.
    Stream,
    /// A terminal that one attaches to.
    Terminal,
}

/// Where an app writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Its log, and whoever runs the pod.
    #[default]
    Log,
    /// Nowhere.
    Null,
    /// Whoever has attached to the app; nowhere while nobody has.
    Stream,
    /// A terminal that one attaches to.
    Terminal,
}

impl FromStr for Input {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "null" => Ok(Self::Null),
            "stream" => Ok(Self::Stream),
            "tty" => Ok(Self::Terminal),
            _ => Err(refused(text, "null, stream or tty")),
        }
    }
}

impl FromStr for Output {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "log" => Ok(Self::Log),
            "null" => Ok(Self::Null),
            "stream" => Ok(Self::Stream),
            "tty" => Ok(Self::Terminal),
            _ => Err(refused(text, "log, null, stream or tty")),
        }
    }
}

fn refused(text: &str, known: &str) -> Error {
    Error::new(Kind::BadName, format!("connect a standard stream to {text:?}: must be {known}"))
}

/// All three of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: Input,
    pub stdout: Output,
    pub stderr: Output,
}

impl Streams {
    /// What an app's annotations say.
    ///
    /// # Errors
    /// A word that is none, or a terminal for some of the streams only.
    pub fn of(app: &RuntimeApp) -> Result<Self, Error> {
        let [stdin, stdout, stderr] = ANNOTATIONS.map(|name| app.annotation(name));
        let terminal = [stdin, stdout, stderr].contains(&Some("tty"));
        if terminal && ![stdin, stdout, stderr].into_iter().flatten().all(|mode| mode == "tty") {
            let why = format!(
                "connect app {} to a terminal: it has one for all of its streams or none; say tty of the others \
                 or nothing",
                app.name
            );
            return Err(Error::new(Kind::BadName, why));
        }
        if terminal {
            let (stdin, stdout, stderr) = (Input::Terminal, Output::Terminal, Output::Terminal);
            return Ok(Self { stdin, stdout, stderr });
        }
        Ok(Self {
            stdin: stdin.map_or(Ok(Input::Usual), str::parse)?,
            stdout: stdout.map_or(Ok(Output::Log), str::parse)?,
            stderr: stderr.map_or(Ok(Output::Log), str::parse)?,
        })
    }

    /// Whether the app has a terminal.
    pub fn has_terminal(self) -> bool {
        self.stdin == Input::Terminal
    }

    /// What one can attach to, by rkt's names.
    pub fn endpoints(self) -> Vec<&'static str> {
        if self.has_terminal() {
            return vec!["tty-in", "tty-out"];
        }
        let all = [
            ("stdin", self.stdin == Input::Stream),
            ("stdout", self.stdout != Output::Null),
            ("stderr", self.stderr != Output::Null),
        ];
        all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
    }
}
