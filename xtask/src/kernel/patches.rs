//! The changes to the kernel's source, one file each, in the order of their names.
use std::fs;
use std::path::{Path, PathBuf};

use hull_errors::Doing;

use crate::error::{Kind, Result};

#[derive(Debug)]
pub(crate) struct Patches {
    files: Vec<PathBuf>,
    text: String,
}

impl Patches {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let doing = || format!("read the patches in {}", folder.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).doing(Kind::Failed, doing)? {
            let path = entry.doing(Kind::Failed, doing)?.path();
            if path.extension().is_some_and(|e| e == "patch") {
                files.push(path);
            }
        }
        files.sort();
        let texts: std::io::Result<Vec<String>> = files.iter().map(fs::read_to_string).collect();
        Ok(Self { text: texts.doing(Kind::Failed, doing)?.concat(), files })
    }

    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// All of them, joined.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
