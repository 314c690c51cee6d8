//! Images that lie on others.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::*;

/// Names, images, signatures.
type Images = Arc<Mutex<Vec<(String, Vec<u8>, Vec<u8>)>>>;

/// A host whose images can be replaced; each is at `/NAME.aci` and discovered from its top.
struct Registry {
    host: Host,
    images: Images,
}

impl Registry {
    fn start(place: &Place) -> Self {
        let images = Images::default();
        let served = Arc::clone(&images);
        let host = Host::start(&place.authority, move |request| {
            let address = request.header("host").unwrap();
            if request.target.contains("ac-discovery") {
                let meta =
                    format!("name=ac-discovery content='{address} https://{address}/{{name}}.{{ext}}'");
                return page(&[meta]);
            }
            let images = served.lock().unwrap();
            let found = images.iter().rev().find_map(|(name, image, signature)| {
                let own = format!("/{address}/{name}.aci");
                let bytes = if request.target == own { image } else { signature };
                (request.target == own || request.target == format!("{own}.asc")).then_some(bytes)
            });
            found.map_or(Reply::new(404, ""), |bytes| Reply::part(request, bytes))
        });
        Self { host, images }
    }

    /// Puts an image there; `more` goes into its manifest. Returns its id.
    fn put(&self, place: &Place, name: &str, more: &Value, files: &[(&str, &str)]) -> String {
        let mut manifest = manifest(&self.name(name), "1");
        for (key, value) in more.as_object().unwrap() {
            manifest[key] = value.clone();
        }
        let image = aci(&manifest, files);
        let signature = place.signer.sign(&image);
        let mut gunzip = Command::new("sh")
            .args(["-c", "gunzip | sha512sum"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut gunzip.stdin.take().unwrap(), &image).unwrap();
        let sum = String::from_utf8(gunzip.wait_with_output().unwrap().stdout).unwrap();
        self.images.lock().unwrap().push((name.to_owned(), image, signature));
        format!("sha512-{}", sum.split_whitespace().next().unwrap())
    }

    /// Of the image there, compressed and not.
    fn sizes(&self, name: &str) -> (u64, u64) {
        let images = self.images.lock().unwrap();
        let (_, image, _) = images.iter().rev().find(|(own, ..)| own == name).unwrap();
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, image).unwrap();
        let plain = Command::new("gunzip").arg("-c").stdin(fs::File::open(&path).unwrap()).output().unwrap();
        (image.len() as u64, plain.stdout.len() as u64)
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host.address())
    }

    fn on(&self, names: &[&str]) -> Value {
        let names: Vec<_> = names.iter().map(|name| json!({ "imageName": self.name(name) })).collect();
        json!({ "dependencies": names })
    }
}

fn listed(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect()
}

#[test]
fn what_comes_later_overrides_and_lists_limit_all_below() {
    let place = Place::new();
    let registry = Registry::start(&place);
    let own = |name: &'static str| [("who", name), (name, name)];
    registry.put(&place, "base", &json!({}), &[("who", "base"), ("base", "base"), ("etc/only-base", "base")]);
    registry.put(&place, "left", &registry.on(&["base"]), &own("left"));
    let mut right = registry.on(&["base"]);
    right["pathWhitelist"] = json!(["/right", "who", "etc/only-base"]);
    registry.put(&place, "right", &right, &[("who", "right"), ("right", "right"), ("hidden", "right")]);
    registry.put(&place, "top", &registry.on(&["left", "right"]), &[("top", "top")]);
    let got = place.by_name(&FetchOptions::default(), &registry.name("top")).unwrap();
    assert_eq!(
        listed(&place.files(&got)),
        [
            ("base", "base"),
            ("etc/only-base", "base"),
            ("left", "left"),
            ("right", "right"),
            ("top", "top"),
            ("who", "right")
        ]
    );
    let mut limited = registry.on(&["left", "right"]);
    limited["pathWhitelist"] = json!(["/who", "/left", "/hidden"]);
    registry.put(&place, "limited", &limited, &[("top", "top")]);
    let got = place.by_name(&FetchOptions::default(), &registry.name("limited")).unwrap();
    assert_eq!(listed(&place.files(&got)), [("left", "left"), ("who", "right")]);
}

#[test]
fn a_changed_dependency_is_never_served_stale() {
    let place = Place::new();
    let registry = Registry::start(&place);
    registry.put(&place, "base", &json!({}), &[("a", "old")]);
    let id = registry.put(&place, "top", &registry.on(&["base"]), &[("top", "top")]);
    let first = place.by_name(&FetchOptions::default(), &registry.name("top")).unwrap();
    assert_eq!(
        (first.image.id.as_str(), listed(&place.files(&first))),
        (&*id, vec![("a", "old"), ("top", "top")])
    );
    registry.put(&place, "base", &json!({}), &[("a", "new")]);
    let again = place.by_name(&FetchOptions::default(), &registry.name("top")).unwrap();
    assert!(!again.converted, "the pull policy is content with what there is");
    let second = place.by_name(&update(), &registry.name("top")).unwrap();
    assert!(second.converted && second.image.id == first.image.id);
    assert_eq!(listed(&place.files(&second)), [("a", "new"), ("top", "top")]);
    assert!(!place.by_name(&FetchOptions::default(), &registry.name("top")).unwrap().converted);
    assert!(!place.by_name(&update(), &registry.name("top")).unwrap().converted);
}

#[test]
fn whoever_was_prepared_with_a_tree_keeps_it() {
    let place = Place::new();
    let registry = Registry::start(&place);
    registry.put(&place, "base", &json!({}), &[("a", "old")]);
    registry.put(&place, "top", &registry.on(&["base"]), &[("top", "top")]);
    let first = place.by_name(&update(), &registry.name("top")).unwrap();
    registry.put(&place, "base", &json!({}), &[("a", "new")]);
    let second = place.by_name(&update(), &registry.name("top")).unwrap();
    assert!(first.image.id == second.image.id && first.image.erofs != second.image.erofs);
    assert_eq!(listed(&place.files(&first)), [("a", "old"), ("top", "top")]);
    let (store, id) = (place.store(), &second.image.id);
    assert_eq!(store.get(id).unwrap().erofs, second.image.erofs);
    let used = || Ok::<_, std::convert::Infallible>(BTreeSet::from([id.clone()]));
    let unused = || Ok::<_, std::convert::Infallible>(BTreeSet::new());
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(store.gc(day, used).unwrap().erofs, 0);
    assert!(first.image.erofs.exists());
    let found = store.check().unwrap();
    assert!(found.broken.is_empty(), "{found:?}");
    // Without a pod that uses the image the old one is of no use.
    assert_eq!(store.gc(day, unused).unwrap().erofs, 1);
    assert!(!first.image.erofs.exists());
    assert_eq!(listed(&place.files(&second)), [("a", "new"), ("top", "top")]);
    assert_eq!(store.verify(id).unwrap(), crate::Verification::Good);
    store.remove(std::slice::from_ref(id), unused).unwrap();
    assert!(!second.image.erofs.exists());
}

#[test]
fn what_urls_and_names_led_to_goes_with_it() {
    let place = Place::new();
    let registry = Registry::start(&place);
    registry.put(&place, "base", &json!({}), &[]);
    registry.put(&place, "top", &registry.on(&["base"]), &[]);
    place.by_name(&update(), &registry.name("top")).unwrap();
    let files = |folder: &str| fs::read_dir(place.path("store").join(folder)).unwrap().count();
    assert_eq!((files("remote"), files("aci"), files("partial")), (3, 1, 0));
    let unused = || Ok::<_, std::convert::Infallible>(BTreeSet::new());
    place.store().gc(Duration::from_secs(3600), unused).unwrap();
    assert_eq!((files("remote"), files("aci")), (3, 1));
    let report = place.store().gc(Duration::ZERO, unused).unwrap();
    assert_eq!((report.names, files("remote"), files("aci")), (4, 0, 0));
}

#[test]
fn a_dependency_has_the_size_that_was_announced() {
    let place = Place::new();
    let registry = Registry::start(&place);
    registry.put(&place, "base", &json!({}), &[("a", "base")]);
    let (archive, plain) = registry.sizes("base");
    let top = |size: u64| {
        let name = registry.name("base");
        registry.put(&place, "top", &json!({ "dependencies": [{ "imageName": name, "size": size }] }), &[]);
        place.by_name(&update(), &registry.name("top"))
    };
    assert_eq!(listed(&place.files(&top(archive).unwrap())), [("a", "base")]);
    // What was asked for again has not changed, so it is not measured again.
    fs::remove_dir_all(place.path("store")).unwrap();
    assert_eq!(listed(&place.files(&top(plain).unwrap())), [("a", "base")]);
    fs::remove_dir_all(place.path("store")).unwrap();
    refused(top(plain + 1), Kind::Corrupt, "the image that depends on it says");
    // Endless data ends.
    registry.put(&place, "base", &json!({ "annotations": noise() }), &[]);
    fs::remove_dir_all(place.path("store")).unwrap();
    refused(top(10), Kind::TooLarge, "at most 4106 are accepted");
}

/// Text that cannot be compressed to a few bytes.
fn noise() -> Value {
    let random = RandomState::new();
    let text: String = (0..2000_u32).map(|n| format!("{:x}", random.hash_one(n))).collect();
    json!([{ "name": "noise", "value": text }])
}

#[test]
fn a_dependency_with_an_id_comes_from_the_store() {
    let place = Place::new();
    let registry = Registry::start(&place);
    let id = registry.put(&place, "base", &json!({}), &[("a", "base")]);
    let dependency =
        |id: &str| json!({ "dependencies": [{ "imageName": registry.name("base"), "imageID": id }] });
    registry.put(&place, "top", &dependency(&id), &[]);
    registry.put(&place, "short", &dependency(&id[..71]), &[]);
    registry.put(&place, "wrong", &dependency(&format!("sha512-{}", "0".repeat(128))), &[]);
    place.by_name(&update(), &registry.name("top")).unwrap();
    let asked =
        |name: &str| registry.host.targets().iter().filter(|t| t.contains(&format!("{name}.aci"))).count();
    assert_eq!(asked("base"), 2);
    let got = place.by_name(&update(), &registry.name("short")).unwrap();
    assert_eq!(listed(&place.files(&got)), [("a", "base")]);
    assert_eq!(asked("base"), 2, "the store has it");
    refused(
        place.by_name(&update(), &registry.name("wrong")),
        Kind::Corrupt,
        "the image that depends on it wants",
    );
}

#[test]
fn circles_and_towers_end() {
    let place = Place::new();
    let registry = Registry::start(&place);
    registry.put(&place, "a", &registry.on(&["b"]), &[]);
    registry.put(&place, "b", &registry.on(&["c"]), &[]);
    registry.put(&place, "c", &registry.on(&["b"]), &[]);
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{}:1", registry.name(name)));
    let circle = format!("they go in a circle: {a} -> {b} -> {c} -> {b}");
    refused(place.by_name(&FetchOptions::default(), &registry.name("a")), Kind::Corrupt, &circle);
    for level in 0..40 {
        registry.put(&place, &format!("l{level}"), &registry.on(&[&format!("l{}", level + 1)]), &[]);
    }
    refused(
        place.by_name(&FetchOptions::default(), &registry.name("l0")),
        Kind::TooLarge,
        "lie on each other",
    );
    // Each lies twice on the one below: 2^20 layers.
    for level in 0..20 {
        let next = format!("w{}", level + 1);
        registry.put(&place, &format!("w{level}"), &registry.on(&[&next, &next]), &[]);
    }
    registry.put(&place, "w20", &json!({}), &[]);
    refused(
        place.by_name(&FetchOptions::default(), &registry.name("w0")),
        Kind::TooLarge,
        "lies on more than",
    );
    refused(
        place.by_name(&FetchOptions::default(), &registry.name("l39")),
        Kind::Untrusted,
        &format!("resolve dependency {}", registry.name("l40")),
    );
}
