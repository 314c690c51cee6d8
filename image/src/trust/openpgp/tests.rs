//! Keys and signatures made by the real `gpg`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_errors::chain;
use proptest::prelude::{any, prop_assert, proptest};
use proptest::sample::Index;
use proptest::test_runner::Config;
use tempfile::TempDir;

use super::{KEYS_MAX, Keystore, PublicKey, SIGNATURE_MAX, Scope, Signed};
use crate::{Error, Kind, SettingsFolders};

/// When keys are made, and when signatures are unless said otherwise (2026-01-02 and 2026-02-03, UTC).
const BORN: u64 = 1_767_312_000;
const SIGNED: u64 = 1_770_076_800;
const DAY: u64 = 86_400;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A home of gpg.
struct Gpg(TempDir);

impl Gpg {
    fn new() -> Self {
        let private = fs::Permissions::from_mode(0o700);
        Self(tempfile::Builder::new().prefix("hull-gpg").permissions(private).tempdir().unwrap())
    }

    /// What gpg writes to its output when it runs at that time.
    #[track_caller]
    fn run(&self, time: u64, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.0.path())
            .args([
                "--batch",
                "--quiet",
                "--no-tty",
                "--yes",
                "--passphrase",
                "",
                "--pinentry-mode",
                "loopback",
            ])
            .args(["--trust-model", "always", "--allow-weak-digest-algos"])
            .args(["--faked-system-time", &format!("{time}!")])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run gpg (apt-get install gpg)");
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // gpg need not read all of it.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key that signs, and yields its fingerprint.
    #[track_caller]
    fn key(&self, user_id: &str, algorithm: &str, expiry: &str) -> String {
        let exact = format!("={user_id}");
        self.run(BORN, &["--quick-generate-key", user_id, algorithm, "sign", expiry], b"");
        let listed =
            String::from_utf8(self.run(BORN, &["--with-colons", "--list-keys", &exact], b"")).unwrap();
        let line = listed.lines().find_map(|line| line.strip_prefix("fpr:")).unwrap();
        line.trim_matches(':').to_ascii_lowercase()
    }

    #[track_caller]
    fn export(&self, key: &str) -> Vec<u8> {
        self.run(SIGNED, &["--export", key], b"")
    }

    #[track_caller]
    fn sign(&self, key: &str, content: &[u8]) -> Vec<u8> {
        self.sign_at(SIGNED, key, &[], content)
    }

    #[track_caller]
    fn sign_at(&self, time: u64, key: &str, options: &[&str], content: &[u8]) -> Vec<u8> {
        let key = format!("{key}!");
        self.run(
            time,
            &[&["--local-user", &*key], options, &["--detach-sign", "--output", "-"]].concat(),
            content,
        )
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let gpgconf =
            Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status();
        drop(gpgconf); // The agent also ends by itself when its folder is gone.
    }
}

/// Folders of settings, and files to sign.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn folders(&self) -> SettingsFolders {
        let [system, local, user] = ["system", "local", "user"].map(|name| self.0.path().join(name));
        SettingsFolders { system, local, user: Some(user) }
    }

    fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Trusts a key in the vendor's folder.
    fn trust(&self, below: &str, key: &str, bytes: &[u8]) {
        self.put(&format!("system/trustedkeys/{below}/{key}"), bytes);
    }

    fn load(&self) -> Result<Keystore, Error> {
        Keystore::load(&self.folders())
    }

    fn verify_at(&self, time: u64, signature: &[u8], content: &[u8]) -> Result<Signed, Error> {
        let path = self.put("signed.aci", content);
        self.load().unwrap().verify(signature, &File::open(path).unwrap(), "signed.aci", at(time))
    }

    #[track_caller]
    fn accepts(&self, signature: &[u8], content: &[u8]) -> Signed {
        let signed = self.verify_at(SIGNED + 1, signature, content);
        signed.unwrap_or_else(|e| panic!("{}", chain(&e)))
    }

    #[track_caller]
    fn refuses_at(&self, time: u64, signature: &[u8], content: &[u8], why: &str) {
        let error = self.verify_at(time, signature, content).map(drop).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(why), "{text}");
        assert!(text.starts_with("check the OpenPGP signature of signed.aci: "), "{text}");
        assert_eq!(*error.kind(), Kind::Untrusted, "{text}");
    }

    #[track_caller]
    fn refuses(&self, signature: &[u8], content: &[u8], why: &str) {
        self.refuses_at(SIGNED + 1, signature, content, why);
    }
}

/// A key, trusted for `example.com/app`.
fn trusted(user_id: &str, algorithm: &str, expiry: &str) -> (Gpg, Place, String) {
    let (gpg, place) = (Gpg::new(), Place::new());
    let key = gpg.key(user_id, algorithm, expiry);
    place.trust("prefix.d/example.com/app", &key, &gpg.export(&key));
    (gpg, place, key)
}

fn armoured(kind: &str, bytes: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PGP {kind}-----\n\n{}\n-----END PGP {kind}-----\n", lines.join("\n")).into_bytes()
}

#[test]
fn what_gpg_signs_is_accepted() {
    for algorithm in ["rsa2048", "rsa4096", "ed25519", "nistp256", "nistp384"] {
        let (gpg, place, key) = trusted("Alice <alice@example.com>", algorithm, "0");
        // More than any buffer.
        let content: Vec<u8> = (0..3_000_001_u32).map(|i| (i % 251) as u8).collect();
        for options in [&[][..], &["--armor"], &["--armor", "--comment", "made by a robot"]] {
            let signature = gpg.sign_at(SIGNED, &key, options, &content);
            let signed = place.accepts(&signature, &content);
            let signer = signed.covers("example.com/app").unwrap();
            assert_eq!(signer.fingerprint(), key);
            assert_eq!(signer.user_ids(), ["Alice <alice@example.com>"]);
            assert_eq!(signer.created(), at(SIGNED));
        }
        assert!(place.verify_at(SIGNED + 1, &gpg.sign(&key, b""), b"").is_ok());
    }
}

#[test]
fn a_key_counts_for_its_names_only() {
    let (gpg, place, key) = trusted("Alice <alice@example.com>", "ed25519", "0");
    let signed = place.accepts(&gpg.sign(&key, b"x"), b"x");
    for name in ["example.com/app", "example.com/app/part", "example.com/app/a/b"] {
        signed.covers(name).unwrap();
    }
    for name in
        ["example.com", "example.com/apple", "example.com/ap", "example.com/app-2", "example.org/app", ""]
    {
        let text = signed.covers(name).map(drop).unwrap_err().to_string();
        let want = format!(
            "trusted for `example.com/app` and not for that name (if that key should sign it: `hull trust --prefix={name} "
        );
        assert!(text.contains(&want), "{text}");
        assert!(
            text.contains(&format!(
                "trust signed.aci as image `{name}`: it is signed by the key {key} (Alice"
            )),
            "{text}"
        );
    }
}

#[test]
fn another_file_is_refused() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "0");
    let signature = gpg.sign(&key, b"content");
    for other in [&b"Content"[..], b"conten", b"content\n", b"", b"content\r"] {
        place.refuses(&signature, other, "does not hold: ");
    }
}

#[test]
fn an_unknown_key_is_refused() {
    let (gpg, place, _) = trusted("Alice", "ed25519", "0");
    let other = gpg.key("Mallory", "ed25519", "0");
    let signature = gpg.sign(&other, b"x");
    place.refuses(
        &signature,
        b"x",
        "no such key is trusted (`hull trust --prefix=NAME FILE-OF-THE-KEY` would)",
    );
    place.refuses(&signature, b"x", &other.to_ascii_uppercase());
}

#[test]
fn times_are_checked() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "90d");
    let signature = gpg.sign(&key, b"x");
    let expiry = BORN + 90 * DAY;
    place.verify_at(expiry - 1, &signature, b"x").unwrap();
    place.refuses_at(expiry + 1, &signature, b"x", "Expired on 2026-04-02");
    place.refuses_at(expiry + 1, &signature, b"x", "get the key anew from its owner");
    // A clock may be wrong by minutes.
    place.verify_at(SIGNED - 299, &signature, b"x").unwrap();
    place.refuses_at(SIGNED - 301, &signature, b"x", "Not live until 2026-02-03");
    let short = gpg.sign_at(SIGNED, &key, &["--default-sig-expire", "7d"], b"x");
    place.verify_at(SIGNED + 6 * DAY, &short, b"x").unwrap();
    place.refuses_at(SIGNED + 7 * DAY, &short, b"x", "Expired on 2026-02-10");
    // The owner extends the key, and what it has signed holds again: gpg forgets the old expiry.
    gpg.run(expiry - DAY, &["--quick-set-expire", &key, "5y"], b"");
    place.trust("prefix.d/example.com/app", &key, &gpg.export(&key));
    place.verify_at(expiry + 1, &signature, b"x").unwrap();
}

#[test]
fn a_signature_made_with_an_expired_key_is_refused() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "90d");
    gpg.run(BORN + 95 * DAY, &["--quick-set-expire", &key, "0"], b"");
    let signature = gpg.sign_at(BORN + 100 * DAY, &key, &[], b"x");
    place.refuses_at(
        BORN + 101 * DAY,
        &signature,
        b"x",
        "did not hold when it was made: The primary key is not live: Expired",
    );
}

#[test]
fn a_revoked_key_is_refused() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "0");
    let signature = gpg.sign(&key, b"x");
    place.accepts(&signature, b"x");
    let certificate = gpg.0.path().join(format!("openpgp-revocs.d/{}.rev", key.to_ascii_uppercase()));
    // A colon keeps the certificate from being used by accident.
    let certificate = fs::read_to_string(certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.run(SIGNED, &["--import"], certificate.as_bytes());
    // Known from one file is known: the other still has the key without it.
    place.put(&format!("local/trustedkeys/root.d/{key}"), &gpg.export(&key));
    place.refuses(&signature, b"x", "revoked");
}

#[test]
fn a_retired_key_is_refused() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "0");
    let signature = gpg.sign(&key, b"x");
    // A revocation that gives a reason would leave older signatures valid, were it not for our rule.
    let answers = b"y\n3\n\ny\n";
    let command = ["--no-batch", "--command-fd", "0", "--output", "-", "--gen-revoke", &*key];
    let certificate = gpg.run(SIGNED + DAY, &command, answers);
    gpg.run(SIGNED + DAY, &["--import"], &certificate);
    place.trust("prefix.d/example.com/app", &key, &gpg.export(&key));
    place.accepts(&signature, b"x");
    place.refuses_at(SIGNED + 2 * DAY, &signature, b"x", "is revoked");
}

#[test]
fn weak_algorithms_are_refused() {
    let (gpg, place, key) = trusted("Alice", "rsa2048", "0");
    for (algorithm, why) in [("SHA1", "SHA1"), ("RIPEMD160", "RipeMD160")] {
        let signature = gpg.sign_at(SIGNED, &key, &["--digest-algo", algorithm], b"x");
        place.refuses(&signature, b"x", why);
    }
    let (gpg, place, key) = trusted("Alice", "rsa1024", "0");
    place.refuses(&gpg.sign(&key, b"x"), b"x", "RSA1024");
}

#[test]
fn of_several_signatures_one_that_counts_is_enough() {
    let (gpg, place, alice) = trusted("Alice", "ed25519", "0");
    let bob = gpg.key("Bob", "rsa2048", "0");
    let bobs = gpg.sign(&bob, b"x");
    let (alices, others) = (gpg.sign(&alice, b"x"), gpg.sign(&alice, b"y"));
    for several in [[&*bobs, &*alices].concat(), [&*alices, &*bobs].concat(), [&*others, &*alices].concat()] {
        for several in [armoured("SIGNATURE", &several), several] {
            assert_eq!(place.accepts(&several, b"x").covers("example.com/app").unwrap().fingerprint(), alice);
        }
    }
    place.refuses(&[bobs.clone(), others.clone()].concat(), b"x", "no such key is trusted");
    place.refuses(&[bobs.clone(), others].concat(), b"x", "does not hold");
    place.refuses(&alices.repeat(17), b"x", "more than 16 signatures");
    // Each key for its own names; the newest signature is the one that is told of.
    place.trust("prefix.d/example.org", &bob, &gpg.export(&bob));
    let signed = place.accepts(&[bobs, alices].concat(), b"x");
    assert_eq!(signed.covers("example.org/x").unwrap().fingerprint(), bob);
    assert_eq!(signed.covers("example.com/app").unwrap().fingerprint(), alice);
    signed.covers("example.net").map(drop).unwrap_err();
}

#[test]
fn what_is_no_detached_signature_is_refused() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "0");
    let user = ["--local-user", &key];
    let good = gpg.sign(&key, b"x");
    let armour = armoured("SIGNATURE", &good);
    place.accepts(&armour, b"x");
    place.accepts(&[b"\n \n", &*armour, b"\n\n"].concat(), b"x");
    let made = |options: &[&str]| gpg.run(SIGNED, &[&user[..], options].concat(), b"x");
    let literal = made(&["--store", "--compress-algo", "none"]);
    check_refused(
        &place,
        &[
            (&[], "it is empty"),
            (b"\n", "neither armoured nor binary"),
            (b"hello", "neither armoured nor binary"),
            (b"\x7fELF", "neither armoured nor binary"),
            (&made(&["--clearsign"]), "it holds `SIGNED MESSAGE`, not `SIGNATURE`"),
            (&made(&["--sign", "--compress-algo", "none"]), "a packet that is no signature"),
            (&made(&["--sign"]), "a packet that is no signature (Compressed Data"),
            (&made(&["--armor", "--sign"]), "it holds `MESSAGE`, not `SIGNATURE`"),
            (&made(&["--passphrase", "x", "--symmetric"]), "a packet that is no signature"),
            (
                &armoured("SIGNATURE", &made(&["--passphrase", "x", "--symmetric"])),
                "a packet that is no signature",
            ),
            (&gpg.export(&key), "a packet that is no signature (Public-Key"),
            (
                &gpg.run(SIGNED, &["--armor", "--export", &key], b""),
                "it holds `PUBLIC KEY BLOCK`, not `SIGNATURE`",
            ),
            (&made(&["--textmode", "--detach-sign"]), "not over the bytes of a file"),
            (&[&*good, &*literal].concat(), "a packet that is no signature (Literal"),
            (&[&*literal, &*good].concat(), "a packet that is no signature (Literal"),
            (&[&*good, b"\xca\x03PGP"].concat(), "a packet that is no signature (Marker"),
            (&armoured("SIGNATURE", &[&*good, &*literal].concat()), "a packet that is no signature"),
            (&[b"good signature from Alice\n", &*armour].concat(), "there is text before the armour"),
            (&[&*armour, b"-- \nAlice"].concat(), "something follows the end of the armour"),
            (&[&*armour, &*armour].concat(), "something follows the end of the armour"),
            (&armour[..armour.len() - 20], "its armour has no end"),
            (&good[..good.len() - 1], ""),
            (&armoured("SIGNATURE", &good[..good.len() / 2]), ""),
            (&armoured("SIGNATURE", &[]), ""),
            (&[&*good, b"garbage"].concat(), ""),
            (&vec![0x88; SIGNATURE_MAX + 1], "more than 65536 bytes"),
        ],
    );
}

#[track_caller]
fn check_refused(place: &Place, cases: &[(&[u8], &str)]) {
    for (signature, why) in cases {
        place.refuses(signature, b"x", why);
    }
}

#[test]
fn a_signature_of_a_key_is_none_of_a_file() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "0");
    // The last packet of an exported key is the signature on its user id.
    let exported = gpg.export(&key);
    let start = exported.windows(2).rposition(|bytes| bytes[0] == 0x88 && bytes[1] as usize > 80).unwrap();
    place.refuses(&exported[start..], b"x", "");
}

#[test]
fn mutated_signatures_prove_nothing_else() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "0");
    let good = gpg.sign(&key, b"x");
    let armour = armoured("SIGNATURE", &good);
    let keystore = place.load().unwrap();
    let file = File::open(place.put("x", b"x")).unwrap();
    let other = File::open(place.put("y", b"y")).unwrap();
    proptest!(Config::with_cases(300), |(which in any::<bool>(), position in any::<Index>(), byte in any::<u8>(), cut in any::<Index>())| {
        let mut bytes = if which { good.clone() } else { armour.clone() };
        let position = position.index(bytes.len());
        bytes[position] ^= byte;
        let cut = &bytes[..=cut.index(bytes.len())];
        for bytes in [&*bytes, cut] {
            prop_assert!(keystore.verify(bytes, &other, "y", at(SIGNED + 1)).is_err());
            if let Ok(signed) = keystore.verify(bytes, &file, "x", at(SIGNED + 1)) {
                // What is not covered by the signature itself may change.
                let signer = signed.covers("example.com/app").unwrap();
                prop_assert!(signer.created() == at(SIGNED) && signer.fingerprint() == key);
            }
        }
    });
}

#[test]
fn folders_are_read_as_rkt_reads_them() {
    let (gpg, place, key) = trusted("Alice", "ed25519", "0");
    let public = gpg.export(&key);
    let signature = gpg.sign(&key, b"x");
    let covers = |name: &str| place.accepts(&signature, b"x").covers(name).is_ok();
    // An empty file of the administrator's masks the vendor's.
    assert!(covers("example.com/app/part"));
    place.put(&format!("local/trustedkeys/prefix.d/example.com/app/part/{key}"), b"");
    assert!(covers("example.com/app") && covers("example.com/app/parts") && !covers("example.com/app/part"));
    place.put(&format!("local/trustedkeys/root.d/{key}"), b"");
    assert!(!covers("example.com/app"));
    let text = place.accepts(&signature, b"x").covers("example.com/app").map(drop).unwrap_err().to_string();
    assert!(text.contains("trusted for `example.com/app` and not"), "{text}");
    // The user's own folder has the last word.
    place.put(&format!("user/trustedkeys/prefix.d/example.com/{key}"), &public);
    assert!(covers("example.com") && covers("example.com/app/part") && !covers("example.org"));
    place.put(&format!("user/trustedkeys/root.d/{key}"), &public);
    assert!(covers("example.org") && covers("a"));
}

#[test]
fn files_that_are_not_what_their_name_says_are_refused() {
    let (gpg, _, key) = trusted("Alice", "ed25519", "0");
    let public = gpg.export(&key);
    let other = gpg.key("Bob", "ed25519", "0");
    let secret = gpg.run(SIGNED, &["--export-secret-keys", &key], b"");
    let both = [&*public, &*gpg.export(&other)].concat();
    let upper = key.to_ascii_uppercase();
    let cases: [(&str, &str, &[u8], &str); 10] = [
        ("root.d", &other, &public, &format!("it holds the key {key}; correct or remove the file")),
        ("root.d", "README", b"", "not the fingerprint of a key"),
        ("root.d", &upper, &public, "not the fingerprint of a key"),
        ("root.d", &key[..16], &public, "not the fingerprint of a key"),
        ("root.d", &key, b"hello", "neither armoured nor binary"),
        ("root.d", &key, &public[..public.len() / 2], ""),
        ("root.d", &key, &both, "several keys"),
        ("root.d", &key, &secret, "private key"),
        ("prefix.d", &key, &public, "no image has a name with such a prefix"),
        ("prefix.d/Example.com", &key, &public, "no image has a name with such a prefix"),
    ];
    for (folder, name, bytes, why) in cases {
        let place = Place::new();
        place.trust(folder, name, bytes);
        let text = chain(&place.load().map(drop).unwrap_err());
        assert!(
            text.contains(why) && text.contains(&format!("system/trustedkeys/{folder}/{name}")),
            "{text}"
        );
    }
    Place::new().load().unwrap();
}

#[test]
fn a_key_is_reviewed_and_added() {
    let (gpg, place, key) = trusted("Alice <alice@example.com>", "ed25519", "90d");
    gpg.run(BORN, &["--quick-add-key", &key, "cv25519", "encr", "0"], b"");
    let file = gpg.run(SIGNED, &["--armor", "--export", &key], b"");
    let [public] = <[PublicKey; 1]>::try_from(PublicKey::read(&file, "alice.asc").unwrap()).unwrap();
    assert_eq!(public.fingerprint(), key);
    let review = public.review(at(SIGNED));
    let lines: Vec<_> = review.lines().collect();
    assert_eq!(lines.len(), 3, "{review}");
    let spaced = lines[0].strip_prefix("gpg key fingerprint is: ").unwrap();
    assert_eq!(spaced.replace(' ', "").to_ascii_lowercase(), key);
    assert!(lines[1].starts_with("    Subkey fingerprint: "), "{review}");
    assert_eq!(lines[2], "\tAlice <alice@example.com>");
    assert!(public.review(at(BORN + 91 * DAY)).contains("signs nothing that is accepted: "));

    let mut keystore = place.load().unwrap();
    let added = keystore.add(&Scope::prefix("example.org/x").unwrap(), &public).unwrap();
    let path = place.0.path().join(format!("local/trustedkeys/prefix.d/example.org/x/{key}"));
    assert_eq!(added, format!("Added key for prefix \"example.org/x\" at \"{}\"", path.display()));
    let added = keystore.add(&Scope::ROOT, &public).unwrap();
    let root = place.0.path().join(format!("local/trustedkeys/root.d/{key}"));
    assert_eq!(added, format!("Added root key at \"{}\"", root.display()));
    // Again, over what is there.
    fs::write(&path, b"").unwrap();
    keystore.add(&Scope::prefix("example.org/x").unwrap(), &public).unwrap();
    for path in [&*path, &*root] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert!(gpg_knows(path, &key), "{}", path.display());
    }
    assert!(place.accepts(&gpg.sign(&key, b"x"), b"x").covers("a/b").is_ok());
    assert_eq!(fs::read_dir(place.0.path().join("local/trustedkeys/tmp")).unwrap().count(), 0);
    for prefix in ["", "../x", "Example.com", "a//b", "/a", "a/", "a/../b"] {
        let text = chain(&Scope::prefix(prefix).unwrap_err());
        assert!(text.starts_with(&format!("trust a key for names that begin with `{prefix}`: ")), "{text}");
    }
}

/// Whether gpg finds that key in a file.
fn gpg_knows(path: &Path, key: &str) -> bool {
    let path = path.to_str().unwrap();
    let listed = Gpg::new().run(SIGNED, &["--with-colons", "--show-keys", path], b"");
    String::from_utf8(listed).unwrap().contains(&key.to_ascii_uppercase())
}

#[test]
fn files_of_keys_are_read_strictly() {
    let gpg = Gpg::new();
    let keys = ["Alice", "Bob"].map(|name| gpg.key(name, "ed25519", "0"));
    let [alice, bob] = [0, 1].map(|i| gpg.export(&keys[i]));
    let [alice, bob] = [alice, bob].map(|key| (armoured("PUBLIC KEY BLOCK", &key), key));
    for file in [[&*alice.0, &*bob.0].concat(), [&*alice.1, &*bob.1].concat()] {
        let read = PublicKey::read(&file, "keys").unwrap();
        assert_eq!(read.iter().map(PublicKey::fingerprint).collect::<Vec<_>>(), keys);
    }
    let secret = gpg.run(SIGNED, &["--export-secret-keys", &keys[0]], b"");
    let refused = |bytes: &[u8], kind: Kind, why: &str| {
        let error = PublicKey::read(bytes, "keys").map(drop).unwrap_err();
        assert!(*error.kind() == kind && error.to_string().contains(why), "{error}");
    };
    refused(
        &secret,
        Kind::Untrusted,
        &format!("give `gpg --armor --export {}`", keys[0].to_ascii_uppercase()),
    );
    refused(
        &gpg.run(SIGNED, &["--armor", "--export-secret-keys", &keys[0]], b""),
        Kind::Corrupt,
        "a private key",
    );
    refused(&gpg.sign(&keys[0], b"x"), Kind::Corrupt, "");
    refused(&armoured("PUBLIC KEY BLOCK", &gpg.sign(&keys[0], b"x")), Kind::Corrupt, "");
    refused(&gpg.sign_at(SIGNED, &keys[0], &["--armor"], b"x"), Kind::Corrupt, "it holds `SIGNATURE`");
    refused(b"<html>no such file</html>", Kind::Corrupt, "neither armoured nor binary");
    refused(&[b"my key:\n", &*alice.0].concat(), Kind::Corrupt, "text before the armour");
    refused(&alice.1.repeat(KEYS_MAX + 1), Kind::Corrupt, "more than 1024 keys");
}

#[test]
fn user_ids_cannot_play_with_the_terminal() {
    let gpg = Gpg::new();
    let key = gpg.key("Alice \u{202e}moc.elpmaxe \u{e9}", "ed25519", "0");
    let public = PublicKey::read(&gpg.export(&key), "x").unwrap();
    assert_eq!(public[0].user_ids(), ["Alice \\u{202e}moc.elpmaxe \u{e9}"]);
    assert_eq!(super::keys::printable(b"a\x1b[2J\nb\xff"), "a\\u{1b}[2J\\u{a}b\u{fffd}");
    assert_eq!(super::keys::printable("x".repeat(500).as_bytes()).chars().count(), 201);
}
