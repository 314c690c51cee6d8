//! What was typed is understood as it was meant.

use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn commands_may_be_shortened() {
    assert!(matches!(Cli::parse_from(["hull", "li"]).command, Command::List(_)));
    let cli = Cli::parse_from(["hull", "im", "li"]);
    assert!(matches!(cli.command, Command::Image(ImageCommand::List(_))), "{cli:?}");
}

#[test]
fn what_is_insecure_is_said_in_rkts_words() {
    use InsecureOption::{Http, Image, Tls};
    let check = |args: &[&str], want: &[InsecureOption]| {
        let cli = Cli::parse_from([&["hull"], args, &["fetch", "x"]].concat());
        assert_eq!(cli.global.insecure_options, want, "{args:?}");
    };
    check(&[], &[]);
    check(&["--insecure-options=image,tls"], &[Image, Tls]);
    check(&["--insecure-options=image", "--insecure-options=http"], &[Image, Http]);
    let wrong = Cli::try_parse_from(["hull", "--insecure-options=image,imgae", "fetch", "x"]);
    let text = wrong.unwrap_err().to_string();
    assert!(text.contains("imgae") && text.contains("all-fetch"), "{text}");
}

#[test]
fn contradictions_are_usage_errors() {
    let wrong = [
        &["fetch"][..],
        &["fetch", "--store-only", "--no-store", "x"],
        &["fetch", "--store-only", "--pull-policy=new", "x"],
        &["fetch", "--pull-policy=sometimes", "x"],
        &["image", "list", "--fields=id,colour"],
        &["image", "list", "--sort=id"],
        &["image", "rm"],
        &["image", "export", "x"],
        &["image", "render", "x"],
        &["run", "--interactive", "--detach", "x"],
        &["logs"],
        &["cat-manifest"],
        &["completion", "cmd"],
        &["logs", "--since=yesterday", "x"],
        &["trust", "--root", "--prefix=example.com", "key"],
    ];
    for words in wrong {
        let words = [&["hull"], words].concat();
        assert!(Cli::try_parse_from(&words).is_err(), "{words:?}");
    }
}
