//! What the demo does with one flavour: a command, a server that answers, lists, the exit code.
use std::path::{Path, PathBuf};
use std::{fs, io};

use hull_errors::Doing;

use super::show::Shown;
use crate::error::{Error, Kind, Result};
use crate::paths::Paths;

/// A data directory that is nobody else's. In the lab it is in memory.
const DATA: &str = "/var/tmp/hull-demo";

/// In the pod: a server, a client, an exit code that no default gives.
const SCRIPT: &str = r#"redis-server --daemonize yes --save "" --logfile /tmp/redis.log
until redis-cli ping 2>/dev/null; do :; done
redis-cli set hull "a pod of its own"
redis-cli get hull
echo "$(id -un) on $(uname -sr)"
redis-cli shutdown nosave
exit 7"#;

/// The pod's app is named after the layout's folder; 7 is what it said.
const APP: &str = "app-redis=7";

pub(super) struct Tour {
    programs: PathBuf,
    data: PathBuf,
    stage1: String,
    image: String,
}

impl Tour {
    /// `image` is an OCI layout.
    pub(super) fn new(paths: &Paths, stage1: &str, image: &Path) -> Self {
        let stage1 = format!("--stage1={stage1}");
        Self {
            programs: paths.release(),
            data: DATA.into(),
            stage1,
            image: format!("oci:{}", image.display()),
        }
    }

    pub(super) fn run(&self) -> Result<()> {
        self.forget()?;
        println!("$ export PATH={}:$PATH HULL_DIR={}\n", self.programs.display(), self.data.display());
        let toured = self.tour();
        // A failed tour leaves its pods for a look; its own error says more than this one.
        toured.and_then(|()| self.forget())
    }

    fn tour(&self) -> Result<()> {
        let run = ["run", &self.stage1, &self.image, "--", "--version"];
        self.hull(&run).expect(0, &["Redis server v="])?;
        let run = ["run", &self.stage1, "--exec=/bin/sh", &self.image, "--", "-c", SCRIPT];
        self.hull(&run).expect(7, &["PONG", "OK", "a pod of its own", "redis on Linux"])?;
        let list = self.hull(&["list"]).expect(0, &["exited"])?;
        let pods = pods(&list);
        if pods.len() != 2 {
            return Err(Error::new(
                Kind::Failed,
                format!("find two pods in hull's list, not {}", pods.len()),
            ));
        }
        let statuses: Result<Vec<String>> =
            pods.iter().map(|pod| self.hull(&["status", pod]).expect(0, &["state=exited"])).collect();
        if statuses?.iter().filter(|status| status.lines().any(|line| line == APP)).count() != 1 {
            return Err(Error::new(Kind::Failed, format!("find {APP} in the status of one of the pods")));
        }
        self.hull(&["gc", "--grace-period=0s"]).expect(0, &[])?;
        match self.hull(&["list", "--no-legend"]).expect(0, &[])?.as_str() {
            "" => Ok(()),
            _ => Err(Error::new(Kind::Failed, "collect all pods")),
        }
    }

    fn hull<'a>(&'a self, words: &'a [&'a str]) -> Shown<'a> {
        Shown { words, programs: &self.programs, data: &self.data }
    }

    /// Removes the data directory of this demo or the one before.
    fn forget(&self) -> Result<()> {
        match fs::remove_dir_all(&self.data) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).doing(Kind::Failed, || format!("remove {}", self.data.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Ids of pods: the first word of every line behind the headings.
fn pods(list: &str) -> Vec<String> {
    list.lines().skip(1).filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}
