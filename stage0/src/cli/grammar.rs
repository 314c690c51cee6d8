//! The order of words in `hull run` and `hull prepare`, as rkt has it:
//!
//! ```text
//! hull run [POD OPTIONS] IMAGE [APP OPTIONS] [-- ARGS… [---]] [IMAGE …]
//! ```
//!
//! An option behind an image is that app's, `--` begins the app's arguments and `---` ends them. The words are
//! sorted here by whose they are; what each means is for clap to say. Beyond rkt, with one image the order of
//! options does not matter, since no other app can be meant.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Command, CommandFactory, Parser};

use super::app::{AppFlags, AppParser, AppWish};
use super::{Cli, Command as Cmd};

/// The commands with this grammar.
const COMMANDS: [&str; 2] = ["run", "prepare"];

/// Reads a whole command line.
///
/// # Errors
/// What clap says of it, or that words stand where they mean nothing.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    // Most command lines name no such command, and need no second look.
    let may_name = |word: &OsString| {
        let begins =
            |name: &str| word.to_str().is_some_and(|word| !word.is_empty() && name.starts_with(word));
        COMMANDS.into_iter().any(begins)
    };
    if !words.iter().skip(1).any(may_name) {
        return Cli::try_parse_from(words);
    }
    let mut cli = Cli::command();
    cli.build();
    match place_of_command(&words, &cli) {
        Some((place, name)) => parse_pod(&words, place, &cli, name),
        None => Cli::try_parse_from(words),
    }
}

/// Where the command's name stands, if it is one with this grammar.
fn place_of_command<'a>(words: &[OsString], cli: &'a Command) -> Option<(usize, &'a str)> {
    let options = Options::of(cli);
    let mut place = 1;
    loop {
        let word = words.get(place)?.to_str()?;
        match word.strip_prefix("--") {
            Some("") => return None,
            Some(option) => place += 1 + usize::from(options.takes_next(option)),
            None if word.starts_with('-') => return None,
            None => break,
        }
    }
    let typed = words[place].to_str()?;
    let names = || cli.get_subcommands().map(Command::get_name);
    let mut begun = names().filter(|name| name.starts_with(typed));
    let name = match names().find(|name| *name == typed) {
        Some(name) => name,
        None => begun.next().filter(|_| begun.next().is_none())?,
    };
    COMMANDS.contains(&name).then_some((place, name))
}

fn parse_pod(words: &[OsString], place: usize, cli: &Command, name: &str) -> Result<Cli, clap::Error> {
    let command = cli.find_subcommand(name).expect("the name is one of a subcommand");
    let refuse = |text: String| command.clone().error(ErrorKind::ArgumentConflict, text);
    let mut texts = Vec::new();
    for word in &words[place + 1..] {
        let text = word.to_str().ok_or_else(|| refuse(format!("{} is not UTF-8", word.display())))?;
        texts.push(text.to_owned());
    }
    let options = Options::of(command);
    let sorted = Sorted::sort(texts, &options).map_err(refuse)?;
    let images = sorted.apps.iter().map(|app| app.image.clone().into());
    let pod = sorted.pod.into_iter().map(OsString::from);
    let mut cli = Cli::try_parse_from(words[..=place].iter().cloned().chain(pod).chain(images))?;
    let apps = sorted.apps.into_iter().map(|app| app.read(command, &options)).collect::<Result<_, _>>()?;
    match &mut cli.command {
        Cmd::Run(args) => args.pod.apps = apps,
        Cmd::Prepare(args) => args.apps = apps,
        _ => unreachable!("the same words name the same command"),
    }
    Ok(cli)
}

/// Whose an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Pod,
    App,
    /// hull's own, or the pod's where nothing else can be meant: it may stand anywhere.
    Global,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    owner: Owner,
    takes_value: bool,
    repeats: bool,
}

/// The options of a command, by their names without dashes.
#[derive(Debug)]
struct Options(BTreeMap<String, Known>);

impl Options {
    fn of(command: &Command) -> Self {
        let app = AppFlags::augment_args(Command::new("app"));
        let is_apps = |long: &str| app.get_arguments().any(|arg| arg.get_long() == Some(long));
        let mut options = BTreeMap::new();
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            let owner = match long {
                long if is_apps(long) => Owner::App,
                // Whoever describes a volume beside the app that mounts it has said enough.
                "help" | "volume" => Owner::Global,
                _ if arg.is_global_set() => Owner::Global,
                _ => Owner::Pod,
            };
            let known = Known {
                owner,
                takes_value: arg.get_num_args().is_some_and(|count| count.min_values() > 0),
                repeats: matches!(arg.get_action(), ArgAction::Append),
            };
            let aliases = arg.get_all_aliases().unwrap_or_default();
            options.extend(aliases.into_iter().chain([long]).map(|name| (name.to_owned(), known)));
        }
        Self(options)
    }

    /// What is known of an option, and its name: of `user=7` those of `user`.
    fn find<'a>(&self, option: &'a str) -> (&'a str, Option<Known>) {
        let name = option.split('=').next().unwrap_or(option);
        (name, self.0.get(name).copied())
    }

    /// Whether the next word is this one's value.
    fn takes_next(&self, option: &str) -> bool {
        !option.contains('=') && self.find(option).1.is_some_and(|known| known.takes_value)
    }
}

/// One option with its value, as typed.
#[derive(Clone, Debug)]
struct Typed {
    name: String,
    words: Vec<String>,
}

#[derive(Debug)]
struct Segment {
    image: String,
    options: Vec<Typed>,
    args: Option<Vec<String>>,
}

impl Segment {
    fn read(self, command: &Command, options: &Options) -> Result<AppWish, clap::Error> {
        for (index, option) in self.options.iter().enumerate() {
            let repeats = options.find(&option.name).1.is_some_and(|known| known.repeats);
            if !repeats && self.options[..index].iter().any(|other| other.name == option.name) {
                let text = format!("--{} specified multiple times for the same image", option.name);
                return Err(command.clone().error(ErrorKind::ArgumentConflict, text));
            }
        }
        let words = self.options.into_iter().flat_map(|option| option.words);
        let flags = AppParser::try_parse_from(words)?.flags;
        Ok(AppWish { image: self.image, flags, args: self.args.unwrap_or_default() })
    }
}

/// The words, each with whom it belongs to.
#[derive(Debug, Default)]
struct Sorted {
    pod: Vec<String>,
    apps: Vec<Segment>,
}

impl Sorted {
    fn sort(words: Vec<String>, options: &Options) -> Result<Self, String> {
        let mut sorted = Self::default();
        // What is an app's and stands before the first image; what is the pod's and stands behind it.
        let (mut early, mut late) = (Vec::new(), None);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--" => {
                    let app =
                        sorted.apps.last_mut().ok_or("an image is required before any app arguments")?;
                    if app.args.is_some() {
                        return Err("only one set of app arguments allowed per image".into());
                    }
                    app.args = Some(words.by_ref().take_while(|word| word != "---").collect());
                }
                "---" => (),
                option if option.starts_with("--") => {
                    let (name, known) = options.find(&option[2..]);
                    let name = name.to_owned();
                    let value = options.takes_next(&option[2..]).then(|| words.next()).flatten();
                    let typed = Typed { name, words: [word].into_iter().chain(value).collect() };
                    match (known.map(|known| known.owner), sorted.apps.last_mut()) {
                        (Some(Owner::App), Some(app)) => app.options.push(typed),
                        (Some(Owner::App), None) => early.push(typed),
                        (Some(Owner::Pod), Some(_)) => {
                            sorted.pod.extend(typed.words);
                            late.get_or_insert(typed.name);
                        }
                        // What is not known at all is for clap to say.
                        _ => sorted.pod.extend(typed.words),
                    }
                }
                short if short.starts_with('-') && short != "-" => sorted.pod.push(word),
                _ => sorted.apps.push(Segment { image: word, options: vec![], args: None }),
            }
        }
        sorted.settle(early, late)
    }

    fn settle(mut self, mut early: Vec<Typed>, late: Option<String>) -> Result<Self, String> {
        if self.apps.len() > 1 {
            // In every app, and first: what is said of one app wins.
            let of_all: Vec<Typed> = early.extract_if(.., |typed| typed.name == "mount").collect();
            for app in &mut self.apps {
                app.options.splice(0..0, of_all.iter().cloned());
            }
        }
        match (self.apps.as_mut_slice(), early.first(), late) {
            ([app], ..) => {
                app.options.splice(0..0, early);
                Ok(self)
            }
            (_, Some(typed), _) => Err(format!("--{} must follow an image", typed.name)),
            (_, None, Some(name)) => {
                Err(format!("--{name} is the whole pod's, and must come before the first image"))
            }
            (_, None, None) => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests;
