//! Configured networks: the files of `net.d`, as CNI has them (CNI 1.1, "Network configuration format").

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use hull_errors::Doing;
use serde_json::{Value, json};

use crate::request::Configured;
use crate::{Error, Kind};

/// Longest file, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Most networks of a host.
const NETWORKS_MAX: usize = 256;
/// Most plugins of one network.
const PLUGINS_MAX: usize = 32;
/// What plugins are told where a file names no version, or one whose results read differently.
const VERSION: &str = "0.4.0";
/// Versions whose results hull reads.
const VERSIONS: [&str; 5] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.3.0"];
/// Where plugins are, beside hull's own folders: those of CNI, Debian and Fedora.
const PLUGINS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// Every network in `net.d` of the settings folders, in the order of the files' names; a later folder's file takes the
/// place of an earlier one's of the same name.
///
/// # Errors
/// A file that is no configuration, or two networks of one name.
pub fn configured(folders: &[PathBuf]) -> Result<Vec<Configured>, Error> {
    let path: Vec<PathBuf> = folders
        .iter()
        .rev()
        .map(|folder| folder.join("plugins/net"))
        .chain(PLUGINS.map(PathBuf::from))
        .collect();
    let mut files = BTreeMap::new();
    for folder in folders {
        let folder = folder.join("net.d");
        let entries = match fs::read_dir(&folder) {
            Err(why) if why.kind() == ErrorKind::NotFound => continue,
            other => other.doing(Kind::Request, || format!("list {}", folder.display()))?,
        };
        for entry in entries {
            let file = entry.doing(Kind::Request, || format!("list {}", folder.display()))?.path();
            let known = file.extension().is_some_and(|ending| ending == "conf" || ending == "conflist");
            if known {
                files.insert(file.file_name().unwrap_or_default().to_owned(), file);
            }
        }
    }
    if files.len() > NETWORKS_MAX {
        let text = format!("use {} configured networks: a host has at most {NETWORKS_MAX}", files.len());
        return Err(Error::new(Kind::Request, text));
    }
    let mut networks: Vec<Configured> = vec![];
    for file in files.into_values() {
        let text = read(&file).doing(Kind::Request, || format!("read {}", file.display()))?;
        let list = parse(&text, file.extension().is_some_and(|ending| ending == "conflist"));
        let (name, list) = list.doing(Kind::Request, || format!("understand network {}", file.display()))?;
        if let Some(other) = networks.iter().find(|other| other.name == name) {
            let (one, two) = (other.file.display(), file.display());
            return Err(Error::new(
                Kind::Request,
                format!("use network {name}: both {one} and {two} are it"),
            ));
        }
        networks.push(Configured { name, file, list, path: path.clone(), args: vec![] });
    }
    Ok(networks)
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let count = File::open(file)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    match count as u64 > FILE_MAX {
        true => Err(std::io::Error::other(format!("it is longer than {FILE_MAX} bytes"))),
        false => Ok(text),
    }
}

/// The name and the list of plugins; a file of one plugin becomes a list of one.
pub(crate) fn parse(text: &str, is_list: bool) -> Result<(String, Value), String> {
    let value: Value = serde_json::from_str(text).map_err(|why| why.to_string())?;
    let name = value["name"].as_str().unwrap_or_default().to_owned();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.bytes().all(plain) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("{name:?} is no name: letters, digits, and _ . - after the first"));
    }
    let version = match value.get("cniVersion").map(Value::as_str) {
        None | Some(Some("" | "0.1.0" | "0.2.0")) => VERSION,
        Some(Some(version)) if VERSIONS.contains(&version) => version,
        Some(other) => {
            return Err(format!(
                "hull knows no cniVersion {}: {}",
                other.unwrap_or("of another kind"),
                VERSIONS[..4].join(", ")
            ));
        }
    };
    let plugins = match (is_list, &value["plugins"]) {
        (true, Value::Array(plugins)) => plugins.clone(),
        (true, _) => return Err("a list has \"plugins\"".into()),
        (false, _) => vec![value.clone()],
    };
    if plugins.is_empty() || plugins.len() > PLUGINS_MAX {
        return Err(format!("a network has 1 to {PLUGINS_MAX} plugins, not {}", plugins.len()));
    }
    for plugin in &plugins {
        let kind = plugin["type"].as_str().unwrap_or_default();
        if kind.is_empty() || !kind.bytes().all(plain) || kind.starts_with('.') {
            return Err(format!("{kind:?} is no type of a plugin"));
        }
    }
    Ok((name.clone(), json!({ "cniVersion": version, "name": name, "plugins": plugins })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;

    #[test]
    fn files_become_lists() {
        let (name, list) = parse(r#"{"name": "a-1", "type": "ptp", "ipMasq": true}"#, false).unwrap();
        assert_eq!(
            (name.as_str(), &list["cniVersion"], &list["plugins"][0]["ipMasq"]),
            ("a-1", &json!(VERSION), &json!(true))
        );
        let text =
            r#"{"cniVersion": "1.0.0", "name": "b", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}"#;
        assert_eq!(parse(text, true).unwrap().1["plugins"].as_array().unwrap().len(), 2);
        for (wrong, is_list) in [
            ("", false),
            ("[]", false),
            (r#"{"name": "../x", "type": "ptp"}"#, false),
            (r#"{"name": "x", "type": "../ptp"}"#, false),
            (r#"{"name": "x", "type": ""}"#, false),
            (r#"{"name": "x", "plugins": []}"#, true),
            (r#"{"name": "x", "type": "ptp"}"#, true),
            (r#"{"cniVersion": "9.0.0", "name": "x", "type": "ptp"}"#, false),
        ] {
            assert!(parse(wrong, is_list).is_err(), "{wrong}");
        }
    }

    #[test]
    fn later_folders_win_and_names_are_unique() {
        let (vendor, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |dir: &tempfile::TempDir, file: &str, name: &str| {
            fs::create_dir_all(dir.path().join("net.d")).unwrap();
            let text = format!(r#"{{"name": "{name}", "type": "ptp"}}"#);
            fs::write(dir.path().join("net.d").join(file), text).unwrap();
        };
        write(&vendor, "20-b.conf", "vendors");
        write(&own, "20-b.conf", "own");
        write(&own, "10-a.conf", "first");
        write(&own, "remark.txt", "none");
        let folders = [vendor.path().to_owned(), own.path().to_owned(), "/nowhere".into()];
        let names: Vec<String> = configured(&folders).unwrap().into_iter().map(|n| n.name).collect();
        assert_eq!(names, ["first", "own"]);
        write(&vendor, "30-c.conf", "own");
        assert!(configured(&folders).unwrap_err().to_string().contains("30-c.conf"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,200}", list: bool) {
            let _ = parse(&text, list); // That it comes back is all.
        }
    }
}
