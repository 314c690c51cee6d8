//! `hull trust`: whose signatures count.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::process::ExitCode;
use std::time::SystemTime;

use hull_errors::Doing;
use hull_image::appc::AciFetcher;
use hull_image::trust::openpgp::{KEY_FILE_MAX, Keystore, PublicKey, Scope};
use hull_image::{FetchOptions, Fetcher, Insecure, Name, Store};
use url::Url;

use crate::cli::trust::TrustArgs;
use crate::host::Host;
use crate::progress::OnStderr;
use crate::{Error, FAILURE, Kind};

/// Longest answer that is read.
const ANSWER_MAX: u64 = 1024;

/// Keys as somebody hands them over.
struct Offer {
    /// The file or URL they are from.
    place: String,
    from_https: bool,
    bytes: Vec<u8>,
}

pub(crate) fn trust(args: &TrustArgs, host: &Host) -> Result<ExitCode, Error> {
    let scope = scope(args)?;
    let mut keystore = Keystore::load(&host.settings).doing(Kind::Host, || "read the trusted keys".into())?;
    let mut declined = false;
    // Whose keys count is settled where there are some: a web page adds none to them unseen.
    let settled = args.keys.is_empty() && args.prefix.as_deref().is_some_and(|name| keystore.speaks_of(name));
    for offer in offers(args, host)? {
        let from_https = offer.from_https && host.trust_keys_from_https && !settled;
        let unasked = args.skip_fingerprint_review || from_https;
        let keys = PublicKey::read(&offer.bytes, &offer.place).doing(Kind::User, || "read keys".into())?;
        for key in keys {
            if unasked || is_confirmed(&key, &scope, &offer.place)? {
                let added = keystore.add(&scope, &key).doing(Kind::Host, || "trust the key".into())?;
                println!("{added}");
            } else {
                eprintln!("not trusting {}", key.fingerprint());
                declined = true;
            }
        }
    }
    Ok(ExitCode::from(if declined { FAILURE } else { 0 }))
}

fn scope(args: &TrustArgs) -> Result<Scope, Error> {
    match &args.prefix {
        Some(prefix) => Scope::prefix(prefix).doing(Kind::User, || "use --prefix".into()),
        None if args.root => Ok(Scope::ROOT),
        None => Err(Error::new(
            Kind::User,
            "aborting due to implicit unbounded trust (root domain): name the images that the key may sign with \
             --prefix, or say --root if it may sign every image",
        )),
    }
}

fn offers(args: &TrustArgs, host: &Host) -> Result<Vec<Offer>, Error> {
    match (&args.prefix, &*args.keys) {
        (Some(prefix), []) => discovered(prefix, args, host),
        (None, []) => {
            let text =
                "discovery finds keys for a prefix only: name the file or URL of the key behind --root";
            Err(Error::new(Kind::User, text))
        }
        (_, keys) => keys.iter().map(|key| offer(key, args, host)).collect(),
    }
}

fn discovered(prefix: &str, args: &TrustArgs, host: &Host) -> Result<Vec<Offer>, Error> {
    let doing = || format!("find the keys for prefix {prefix:?}");
    let name = Name::parse(prefix).doing(Kind::User, doing)?;
    let found = network(args, host, |fetcher| fetcher.public_keys(&name)).doing(Kind::User, doing)?;
    Ok(found.into_iter().map(|(url, bytes)| Offer::at(&url, bytes)).collect())
}

fn offer(place: &str, args: &TrustArgs, host: &Host) -> Result<Offer, Error> {
    let doing = || format!("read public keys from {place}");
    match Url::parse(place) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            let bytes = network(args, host, |fetcher| fetcher.public_key(&url)).doing(Kind::User, doing)?;
            Ok(Offer::at(&url, bytes))
        }
        _ => {
            let mut bytes = Vec::new();
            let file = File::open(place).doing(Kind::User, doing)?;
            file.take(KEY_FILE_MAX + 1).read_to_end(&mut bytes).doing(Kind::User, doing)?;
            Ok(Offer { place: place.to_owned(), from_https: false, bytes })
        }
    }
}

impl Offer {
    fn at(url: &Url, bytes: Vec<u8>) -> Self {
        Self { place: url.to_string(), from_https: url.scheme() == "https", bytes }
    }
}

fn network<T>(
    args: &TrustArgs,
    host: &Host,
    ask: impl FnOnce(&AciFetcher<'_>) -> Result<T, hull_image::Error>,
) -> Result<T, Error> {
    let insecure = Insecure {
        http: host.insecure.http || args.insecure_allow_http,
        pubkey: host.insecure.pubkey || args.insecure_allow_http,
        ..host.insecure
    };
    let options = FetchOptions { insecure, ..FetchOptions::default() };
    let store: Store = host.images()?;
    let progress = OnStderr::default();
    let fetcher = Fetcher { store: &store, settings: &host.settings, options: &options, progress: &progress };
    let doing = || "use the network".to_owned();
    ask(&AciFetcher::new(&fetcher)).doing(Kind::User, doing)
}

/// Shows the key and asks whoever sits at the terminal.
fn is_confirmed(key: &PublicKey, scope: &Scope, place: &str) -> Result<bool, Error> {
    eprint!("key for {scope} from {}\n{}", place.escape_debug(), key.review(SystemTime::now()));
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::new(
            Kind::User,
            "nobody can be asked: standard input is no terminal; compare the fingerprint with one that the owner \
             of the key told you, then use --skip-fingerprint-review",
        ));
    }
    let mut lines = stdin.lock().take(ANSWER_MAX);
    loop {
        eprintln!("Are you sure you want to trust this key (yes/no)?");
        let mut answer = String::new();
        let length = lines.read_line(&mut answer).doing(Kind::Host, || "read the answer".into())?;
        match answer.trim() {
            "yes" => return Ok(true),
            "no" => return Ok(false),
            _ if length == 0 => return Ok(false),
            _ => eprintln!("Please enter 'yes' or 'no'"),
        }
    }
}
