//! Each word goes to whom it was meant for.

use super::*;
use crate::cli::pod::PodArgs;

fn pod(line: &str) -> Result<PodArgs, String> {
    let words = ["hull"].into_iter().chain(line.split(' ')).map(OsString::from);
    match parse(words).map(|cli| cli.command) {
        Ok(Cmd::Run(args)) => Ok(args.pod),
        Ok(Cmd::Prepare(args)) => Ok(*args),
        Ok(other) => panic!("{other:?}"),
        Err(why) => Err(why.to_string()),
    }
}

/// The apps as `IMAGE user=USER ARGS…`.
fn apps(line: &str) -> Vec<String> {
    let pod = pod(line).unwrap_or_else(|why| panic!("{line}: {why}"));
    let user = |app: &AppWish| app.flags.user.as_ref().map_or(String::new(), |user| format!(" user={user}"));
    let text = |app: &AppWish| format!("{}{} {}", app.image, user(app), app.args.join(" ")).trim().to_owned();
    pod.apps.iter().map(text).collect()
}

#[test]
fn words_belong_to_the_image_before_them() {
    let check = |line: &str, want: &[&str]| assert_eq!(apps(line), want, "{line}");
    check("run a", &["a"]);
    check("run a b c", &["a", "b", "c"]);
    check("run a -- x --user=1 --- b --user=2", &["a x --user=1", "b user=2"]);
    check("run a --user 1 -- x -- y --- b -- z", &["a user=1 x -- y", "b z"]);
    check("run a --- b", &["a", "b"]);
    check("run a -- --- --user=1 b", &["a user=1", "b"]);
    check("run a -- x --- --user=1", &["a user=1 x"]);
    check("--dir /d --debug run --stage1 fly a b --user=1", &["a", "b user=1"]);
    check("run a b --debug", &["a", "b"]);
    check("prep a -- x", &["a x"]);
    check("run - -- x", &["- x"]);
    // With one image there is no doubt.
    check("run --user=7 a --stage1=fly -- --user=8", &["a user=7 --user=8"]);
}

#[test]
fn words_in_the_wrong_place_are_named() {
    let check = |line: &str, want: &str| {
        let why = pod(line).unwrap_err();
        assert!(why.contains(want), "{line}: {why}");
    };
    check("run --user=1 a b", "--user must follow an image");
    check("run --exec /x", "--exec must follow an image");
    check("run a --user=1 --user=2", "--user specified multiple times for the same image");
    check("run --user=1 a --user=2", "--user specified multiple times for the same image");
    check("run -- x", "an image is required before any app arguments");
    check("run a -- x --- -- y", "only one set of app arguments allowed per image");
    check("run a b --hostname=h", "--hostname is the whole pod's");
    check("run a --frobnicate b", "--frobnicate");
    check("run a --user", "--user");
    check("run a --supplementary-gids=x b", "--supplementary-gids");
    check("run", "IMAGE");
    check("run --pod-manifest=f a", "cannot be used with");
    check("run --pod-manifest=f --set-env=A=b", "cannot be used with");
    check("run --net=,default a", "a network has a name");
    check("run --port=http a", "must be NAME:[HOSTIP:]HOSTPORT");
}

#[test]
fn help_is_help() {
    for line in ["hull run --help", "hull run a --help", "hull run -h a b", "hull help run"] {
        let why = parse(line.split(' ').map(OsString::from)).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::DisplayHelp, "{line}");
        assert!(why.to_string().contains("--supplementary-gids"), "{why}");
    }
}
