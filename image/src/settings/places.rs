//! Where things are, and who: the kinds `paths`, `stage1` and `ids`.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{Document, Folder};
use crate::Error;

#[derive(Deserialize)]
struct Paths {
    data: Option<PathBuf>,
    #[serde(rename = "stage1-images")]
    stage1_images: Option<PathBuf>,
}

/// The user ids that are hull's to give to the machines of its pods (`ids.d`), each with the group id of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Ids {
    /// Never 0, which is root's.
    pub first: u32,
    /// At least one; `first + count` is a number.
    pub count: u32,
}

/// The stage1 to use where the command line names none (`stage1.d`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage1 {
    /// Its name and version.
    pub image: Option<(String, String)>,
    /// Where it is: an absolute path, or a URL.
    pub location: Option<String>,
}

#[derive(Deserialize)]
struct Stage1Document {
    name: Option<String>,
    version: Option<String>,
    location: Option<String>,
}

impl Stage1 {
    pub(super) fn replace(&mut self, later: Stage1) {
        self.image = later.image.or(self.image.take());
        self.location = later.location.or(self.location.take());
    }

    pub(super) fn to_json(&self) -> Value {
        let (name, version) = self.image.clone().unwrap_or_default();
        json!({ "name": name, "version": version, "location": self.location.clone().unwrap_or_default() })
    }
}

pub(super) fn add_paths(
    document: &Document,
    said: &mut Folder,
    data: &mut Option<PathBuf>,
    stage1_images: &mut Option<PathBuf>,
) -> Result<(), Error> {
    let paths: Paths = document.parse()?;
    for (key, value, place) in
        [("data", paths.data, data), ("stage1-images", paths.stage1_images, stage1_images)]
    {
        let Some(path) = value.filter(|path| !path.as_os_str().is_empty()) else { continue };
        if !path.is_absolute() {
            return Err(document.wrong(&format!("`{key}` must be an absolute path")));
        }
        said.says(document, format!("`{key}`"))?;
        *place = Some(path);
    }
    Ok(())
}

pub(super) fn add_ids(document: &Document, said: &mut Folder, ids: &mut Option<Ids>) -> Result<(), Error> {
    let got: Ids = document.parse()?;
    if got.first == 0 || got.count == 0 || got.first.checked_add(got.count).is_none() {
        return Err(document.wrong("from `first` on there are no `count` ids that are not root's"));
    }
    said.says(document, "the range of ids".into())?;
    *ids = Some(got);
    Ok(())
}

pub(super) fn add_stage1(document: &Document, said: &mut Folder, stage1: &mut Stage1) -> Result<(), Error> {
    let got: Stage1Document = document.parse()?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    match (given(got.name), given(got.version)) {
        (Some(name), Some(version)) => {
            said.says(document, "the name of the stage1".into())?;
            stage1.image = Some((name, version));
        }
        (None, None) => (),
        _ => return Err(document.wrong("`name` and `version` go together")),
    }
    if let Some(location) = given(got.location) {
        let schemes = ["/", "file:", "http:", "https:", "docker:"];
        if !schemes.iter().any(|scheme| location.starts_with(scheme)) {
            return Err(document.wrong("`location` must be an absolute path or a URL"));
        }
        said.says(document, "the location of the stage1".into())?;
        stage1.location = Some(location);
    }
    Ok(())
}
