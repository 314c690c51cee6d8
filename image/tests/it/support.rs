//! Builds layers and images byte by byte, and looks at what became of them.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use hull_image::{Converter, Image, Imported, Reference, Store};
use serde_json::{Value, json};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// A tar archive in the making.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

/// What is said of an entry; the rest is 0.
pub(crate) struct Said<'a> {
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) modified: u64,
    pub(crate) target: &'a str,
    pub(crate) device: (u32, u32),
    pub(crate) content: &'a [u8],
    pub(crate) pax: &'a [(&'a str, &'a [u8])],
}

impl Default for Said<'_> {
    fn default() -> Self {
        Self {
            kind: EntryType::Regular,
            mode: 0o644,
            owner: (0, 0),
            modified: 1_700_000_000,
            target: "",
            device: (0, 0),
            content: &[],
            pax: &[],
        }
    }
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn entry(mut self, name: &str, said: &Said<'_>) -> Self {
        if !said.pax.is_empty() {
            self.0.append_pax_extensions(said.pax.iter().copied()).unwrap();
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(said.kind);
        header.set_mode(said.mode);
        header.set_uid(said.owner.0);
        header.set_gid(said.owner.1);
        header.set_mtime(said.modified);
        header.set_size(said.content.len() as u64);
        header.set_device_major(said.device.0).unwrap();
        header.set_device_minor(said.device.1).unwrap();
        // As it is: the builder's own setters clean names up.
        assert!(name.len() < 100 && said.target.len() < 100, "longer names go into pax headers");
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + said.target.len()].copy_from_slice(said.target.as_bytes());
        header.set_cksum();
        self.0.append(&header, said.content).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, &Said { content, ..Said::default() })
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(name, &Said { kind: EntryType::Directory, mode: 0o755, ..Said::default() })
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, &Said { kind: EntryType::Symlink, mode: 0o777, target, ..Said::default() })
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, &Said { kind: EntryType::Link, target, ..Said::default() })
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A folder for one test, and a store in it.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.path("store"), Converter { program: converter() }).unwrap()
    }

    #[track_caller]
    pub(crate) fn import(&self, reference: &str) -> Imported {
        let imported = self.store().import(&Reference::parse(reference).unwrap());
        imported.unwrap_or_else(|e| panic!("{}", hull_errors::chain(&e)))
    }

    /// Imports uncompressed layers as an OCI layout.
    #[track_caller]
    pub(crate) fn import_layers(&self, layers: &[Vec<u8>]) -> Image {
        write_layout(&self.path("layout"), &oci_image(layers), &[]);
        self.import(&format!("oci:{}", self.path("layout").display())).image
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// The program that reads archives, as it is now: Cargo builds the programs of this package only.
pub(crate) fn converter() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let built =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "hull-converter"]).status();
        assert!(built.unwrap().success(), "building hull-converter");
        let tests = std::env::current_exe().unwrap();
        tests.parent().unwrap().parent().unwrap().join("hull-converter")
    };
    BUILT.get_or_init(build).clone()
}

/// An example of this crate, which Cargo builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo test -p hull-image`, which builds it", path.display());
    path
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hash("sha256sum", bytes)
}

pub(crate) fn sha512(bytes: &[u8]) -> String {
    hash("sha512sum", bytes)
}

/// By another program than the code under test.
fn hash(program: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8(filter(&[program], bytes)).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}

/// What a program makes of `input`.
pub(crate) fn filter(command: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// An image as blobs: `(digest, bytes)`, the manifest last.
pub(crate) fn oci_image(layers: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    oci_image_with(layers, &json!({"Cmd": ["sh"]}), |_| ())
}

/// Likewise with this `config`, and whatever `change` does to the manifest.
pub(crate) fn oci_image_with(
    layers: &[Vec<u8>],
    config: &Value,
    change: impl FnOnce(&mut Value),
) -> Vec<(String, Vec<u8>)> {
    let mut blobs: Vec<_> = layers.iter().map(|layer| blob(layer.clone())).collect();
    let diff_ids: Vec<_> = blobs.iter().map(|(digest, _)| digest.clone()).collect();
    let descriptors: Vec<_> = blobs
        .iter()
        .map(|(digest, bytes)| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": bytes.len()}))
        .collect();
    let config = document(&json!({
        "os": "linux", "architecture": "amd64", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }));
    let mut manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1.len()},
        "layers": descriptors,
    });
    change(&mut manifest);
    blobs.push(config);
    blobs.push(document(&manifest));
    blobs
}

pub(crate) fn blob(bytes: Vec<u8>) -> (String, Vec<u8>) {
    (format!("sha256:{}", sha256(&bytes)), bytes)
}

pub(crate) fn document(value: &Value) -> (String, Vec<u8>) {
    blob(serde_json::to_vec(value).unwrap())
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The files of an OCI layout that holds one image, under each of these tags (or under none).
pub(crate) fn layout_files(image: &[(String, Vec<u8>)], tags: &[&str]) -> Vec<(String, Vec<u8>)> {
    let (digest, manifest) = image.last().unwrap();
    let plain = json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len()});
    let mut manifests: Vec<_> = tags
        .iter()
        .map(|tag| {
            let mut descriptor = plain.clone();
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
            descriptor
        })
        .collect();
    if tags.is_empty() {
        manifests.push(plain);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), serde_json::to_vec(&index).unwrap()),
    ];
    let blobs =
        image.iter().map(|(digest, bytes)| (format!("blobs/{}", digest.replace(':', "/")), bytes.clone()));
    files.extend(blobs);
    files
}

pub(crate) fn write_layout(folder: &Path, image: &[(String, Vec<u8>)], tags: &[&str]) {
    for (name, bytes) in layout_files(image, tags) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Files as an archive.
pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let layer = files.iter().fold(Layer::new(), |layer, (name, bytes)| {
        layer.entry("x", &Said { content: bytes, pax: &[("path", name.as_bytes())], ..Said::default() })
    });
    layer.bytes()
}

/// Runs a shell script in mount namespace of its own, as `$1`, `$2`, ….
#[track_caller]
pub(crate) fn shell(script: &str, arguments: &[&Path]) -> String {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-euc", script, "bash"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything about a tree as one archive: GNU tar records type, mode, owner, size, time, content,
/// extended attributes, device numbers and which names are one file.
const RECORD: &str = "record() { tar --sort=name --format=posix --numeric-owner --xattrs --xattrs-include='*' \
    --pax-option=delete=atime,delete=ctime,exthdr.name=pax/%f -C \"$1\" -cf \"$2\" .; }; ";

/// Checks an image with `fsck.erofs`, mounts it, and compares it with what GNU tar makes of the layers.
#[track_caller]
pub(crate) fn compare_with_gnu_tar(place: &Place, image: &Image, layers: &[Vec<u8>]) {
    shell("fsck.erofs \"$1\"", &[&image.erofs]);
    let wanted = place.path("wanted");
    shell("mkdir \"$1\"; touch -d @0 \"$1\"", &[&wanted]);
    for layer in layers {
        let path = place.write("layer.tar", layer);
        shell(
            "find \"$2\" -type d -printf '%T@ %P\\n' > \"$1.before\"
             tar -tf \"$1\" | while read -r name; do
               base=${name##*/}; folder=$2/${name%\"$base\"}
               case $base in
                 .wh..wh..opq) find \"$folder\" -mindepth 1 -delete;;
                 .wh.*) rm -r \"$folder/${base#.wh.}\";;
               esac
             done
             tar --delay-directory-restore --numeric-owner --xattrs --xattrs-include='*' --exclude='.wh.*' -xpf \"$1\" -C \"$2\"
             # A folder that a layer does not list keeps its time, whatever happens inside.
             tar -tf \"$1\" | sed 's,/*$,,; s,^\\./,,; s,^\\.$,,' > \"$1.listed\"
             while read -r time folder; do
               [ -d \"$2/$folder\" ] && ! grep -qxF -- \"$folder\" \"$1.listed\" && touch -d \"@$time\" \"$2/$folder\" || true
             done < \"$1.before\"",
            &[&path, &wanted],
        );
    }
    compare_with_folder(place, image, &wanted);
}

/// Mounts an image and compares it with the files in a folder.
#[track_caller]
pub(crate) fn compare_with_folder(place: &Place, image: &Image, wanted: &Path) {
    let script = format!(
        "{RECORD} mkdir \"$3/mounted\"; mount -t erofs -o ro \"$1\" \"$3/mounted\"
         record \"$3/mounted\" \"$3/got.tar\"; record \"$2\" \"$3/wanted.tar\""
    );
    shell(&script, &[&image.erofs, wanted, &place.path("")]);
    let (got, wanted) = (records(&place.path("got.tar")), records(&place.path("wanted.tar")));
    assert!(wanted.len() > 1);
    for (got, wanted) in got.iter().zip(&wanted) {
        assert!(got == wanted, "{}: got {got:?}\nwanted {wanted:?}", got.path);
    }
    assert_eq!(got.len(), wanted.len());
}

/// A header of an archive and what follows it. Of extended headers the lines are sorted, for file systems
/// list extended attributes in any order.
#[derive(Debug, PartialEq)]
struct Record {
    path: String,
    header: Vec<u8>,
    content: Vec<u8>,
}

fn records(path: &Path) -> Vec<Record> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let record = |entry: std::io::Result<tar::Entry<'_, fs::File>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if entry.header().entry_type() == EntryType::XHeader {
            let mut lines: Vec<_> = content.split(|b| *b == b'\n').collect();
            lines.sort_unstable();
            content = lines.join(&b'\n');
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        Record { path, header: entry.header().as_bytes().to_vec(), content }
    };
    archive.entries().unwrap().raw(true).map(record).collect()
}
