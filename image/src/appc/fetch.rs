//! Fetching App Container Images: from files, URLs and names, with all that they lie on.
//!
//! Of an archive nothing is parsed or uncompressed before a trusted key is known to have signed it.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hull_errors::Doing;
use url::Url;

use super::Name;
use super::claims::Claims;
use super::dependencies::{Find, Part, layers};
use super::discovery::discover;
use super::network::Network;
use super::page::{Endpoint, Page};
use super::remote::{self, Remote, State};
use super::web::{Answer, Archive, Web, shown};
use crate::aci::{Dependency, Manifest};
use crate::blobs::cannot_write;
use crate::digest::{Algorithm, Digest, IdPrefix, ImageId};
use crate::import::open_regular;
use crate::names::NamedImage;
use crate::store::{Imported, Prepared};
use crate::transport::partial::{Complete, Identity, Wanted};
use crate::transport::retry::Patience;
use crate::trust::Rollback;
use crate::trust::openpgp::{KEY_FILE_MAX, Keystore, PublicKey, SIGNATURE_MAX, Scope, Signed, Signer};
use crate::{Error, Fetcher, Kind, Progress, PullPolicy, Store};

/// All of a file.
const WHOLE: (u64, u64) = (0, u64::MAX);

/// Fetches ACIs as a [`Fetcher`] wants them.
pub struct AciFetcher<'a> {
    fetcher: &'a Fetcher<'a>,
    network: Network<'a>,
    /// Read when the first signature comes.
    keystore: OnceCell<RefCell<Keystore>>,
    /// What names led to during this fetch: in one image all that ask for a name get the same.
    found: RefCell<BTreeMap<Name, Digest>>,
}

impl fmt::Debug for AciFetcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AciFetcher").field("fetcher", self.fetcher).finish_non_exhaustive()
    }
}

/// Where the signature of an archive is.
#[derive(Clone, Copy)]
enum SignatureAt<'a> {
    /// Nobody wants to see it.
    Unwanted,
    File(&'a Path),
    Url(&'a Url),
}

/// Whether a server has a signature.
enum Early {
    Unwanted,
    Here(Vec<u8>),
    /// It is made while the image is downloaded.
    Later,
}

/// An archive that was found right and its place in the store.
struct Fetched {
    part: Part,
    was_verified: bool,
}

impl<'a> AciFetcher<'a> {
    /// Settings, trusted keys and the network are looked at when they are needed.
    pub fn new(fetcher: &'a Fetcher<'a>) -> Self {
        Self::with(fetcher, Vec::new(), Patience::default())
    }

    pub(super) fn with(
        fetcher: &'a Fetcher<'a>,
        authorities: Vec<reqwest::Certificate>,
        patience: Patience,
    ) -> Self {
        let network = Network::new(fetcher, authorities, patience);
        Self { fetcher, network, keystore: OnceCell::new(), found: RefCell::default() }
    }

    /// The image of a name: from the store if the pull policy lets it, else from where discovery leads.
    ///
    /// # Errors
    /// Whatever [`Kind`] names.
    pub fn by_name(&self, name: &Name) -> Result<Imported, Error> {
        let _hold = self.store().hold()?;
        let imported = match self.in_store(name)? {
            Some(imported) => imported,
            None if self.policy() == PullPolicy::Never => return Err(not_in_store(&name.to_string())),
            None => {
                let claims = Claims { name: Some(name), size: None };
                let signature = self.fetcher.options.signature.as_deref();
                let fetched = self.discover_and_fetch(name, signature, claims)?;
                self.finish(fetched.part)?
            }
        };
        self.remember(&name.to_string(), &imported, name.version().is_none())?;
        Ok(imported)
    }

    /// The image at a URL, `http` or `https`.
    ///
    /// # Errors
    /// Whatever [`Kind`] names.
    pub fn by_url(&self, url: &Url) -> Result<Imported, Error> {
        let _hold = self.store().hold()?;
        let mut beside = url.clone();
        beside.set_path(&format!("{}.asc", url.path()));
        let signature = self.signature_at(self.fetcher.options.signature.as_deref(), &beside);
        let fetched = self.fetch_url(url, signature, Claims::default())?;
        let imported = self.finish(fetched.part)?;
        self.remember(url.as_str(), &imported, false)?;
        Ok(imported)
    }

    /// The image in a file, its signature beside it or where the user says.
    ///
    /// # Errors
    /// Whatever [`Kind`] names.
    pub fn file(&self, path: &Path) -> Result<Imported, Error> {
        let _hold = self.store().hold()?;
        let shown = format!("image {}", path.display());
        let file = open_regular(path)?;
        if self.fetcher.options.insecure.image {
            let part = self.unpack(&file, &shown)?;
            return self.finish(part);
        }
        let signature = self.signature_of_file(path)?;
        // Whoever can write to the file shall not change it between the check and the use.
        let copy = self.store().blobs().scratch(&mut &file, &shown)?;
        let signed = self.verify(&signature, &copy, &shown)?;
        let part = self.unpack(&copy, &shown)?;
        let signer = self.covers(&signed, part.manifest.name().as_str())?;
        self.note_signer(&part, signer)?;
        self.finish(part)
    }

    /// Whether an image of the store may still be used: one that was signed when it came, only as long as a key that
    /// signed it is trusted for its name.
    ///
    /// # Errors
    /// [`Kind::Host`], and whatever reading the trusted keys fails with.
    pub(crate) fn is_trusted(&self, archive: &Digest, name: &str) -> Result<bool, Error> {
        if self.fetcher.options.insecure.image {
            return Ok(true);
        }
        let signers = self.store().signers().of(archive);
        let signers = signers.doing(Kind::Host, || format!("look for who signed image {name}"))?;
        let Some(first) = signers.first() else { return Ok(true) };
        let keystore = self.keystore()?.borrow();
        let trusted = signers.iter().any(|signer| keystore.trusts(signer, name));
        if !trusted {
            let text =
                format!("image {name} in the store was signed by {first}, which is no longer trusted for it");
            self.progress().warn(&text);
        }
        Ok(trusted)
    }

    fn note_signer(&self, part: &Part, signer: &Signer) -> Result<(), Error> {
        let noted = self.store().signers().put(part.blob.digest(), signer.fingerprint());
        noted.map_err(|e| cannot_write(self.store().folder(), "who signed an image", e))
    }

    /// The public keys that discovery names for an image name or a prefix of one, each with where it is from.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Network`].
    pub fn public_keys(&self, name: &Name) -> Result<Vec<(Url, Vec<u8>)>, Error> {
        self.network.ask(async |web| {
            let page = discover(web, name, self.progress(), |page| !page.keys.is_empty()).await?;
            let mut keys = Vec::new();
            for url in page.keys {
                let bytes = self.key_at(web, &url).await?;
                keys.push((url, bytes));
            }
            Ok(keys)
        })
    }

    /// The public keys at a URL.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Network`], [`Kind::Untrusted`] for a place that is not secure.
    pub fn public_key(&self, url: &Url) -> Result<Vec<u8>, Error> {
        self.network.ask(async |web| self.key_at(web, url).await)
    }

    async fn key_at(&self, web: &Web, url: &Url) -> Result<Vec<u8>, Error> {
        let address = shown(url);
        if url.scheme() != "https" && !self.fetcher.options.insecure.pubkey {
            let text = format!(
                "fetch the public key {address}: keys come over https only (or use --insecure-options=pubkey)"
            );
            return Err(Error::new(Kind::Untrusted, text));
        }
        match web.document(url, KEY_FILE_MAX, self.progress()).await? {
            Answer::Document(bytes) => Ok(bytes),
            _ => Err(Error::new(Kind::NotFound, format!("fetch the public key {address}: there is none"))),
        }
    }

    fn store(&self) -> &Store {
        self.fetcher.store
    }

    fn progress(&self) -> &dyn Progress {
        self.fetcher.progress
    }

    fn policy(&self) -> PullPolicy {
        self.fetcher.options.pull
    }

    fn remember(&self, name: &str, imported: &Imported, latest: bool) -> Result<(), Error> {
        let id = &imported.image.id;
        self.store().touch(id);
        self.store().put_name(&NamedImage { latest, ..NamedImage::new(name, id.clone()) })
    }

    /// An image that the store has, made anew if what it lies on has changed.
    fn in_store(&self, name: &Name) -> Result<Option<Imported>, Error> {
        if self.policy() == PullPolicy::Update {
            return Ok(None);
        }
        let Some(image) = self.store().find_aci(name)? else { return Ok(None) };
        if !self.is_trusted(&Digest::from(&image.id), name.name())? {
            return Ok(None);
        }
        match self.blob(&Digest::from(&image.id), &format!("image {}", image.id))? {
            Some(part) if !part.manifest.dependencies().is_empty() => self.finish(part).map(Some),
            _ => Ok(Some(Imported { image, converted: false })),
        }
    }

    /// Turns an image and what it lies on into a file system.
    fn finish(&self, part: Part) -> Result<Imported, Error> {
        let id = ImageId::from(part.blob.digest());
        let (manifest, layers) = layers(part, self)?;
        let name = manifest.title();
        let config = manifest.configuration(&format!("image {name}"))?;
        self.store().make_of(&id, Prepared { name, config, layers })
    }

    fn discover_and_fetch(
        &self,
        name: &Name,
        signature: Option<&Path>,
        claims: Claims<'_>,
    ) -> Result<Fetched, Error> {
        let progress = self.progress();
        let has_place = |page: &Page| !page.endpoints.is_empty();
        let page = self.network.ask(async |web| discover(web, name, progress, has_place).await)?;
        if self.fetcher.options.trust_keys_from_https && !self.fetcher.options.insecure.image {
            self.trust_discovered_keys(name)?;
        }
        let mut failures: Vec<Error> = Vec::new();
        for Endpoint { aci, signature: beside } in &page.endpoints {
            match self.fetch_url(aci, self.signature_at(signature, beside), claims) {
                Err(e) if !matches!(e.kind(), Kind::Host | Kind::NoSpace) => {
                    progress.note(&hull_errors::chain(&e));
                    failures.push(e);
                }
                done => return done,
            }
        }
        Err(of_places(name, failures))
    }

    /// Without a question (rkt's `--trust-keys-from-https`): keys that come over plain HTTP are left out. Whose keys
    /// count for a name that somebody has named keys for is settled, as in rkt: a web page adds none to them.
    fn trust_discovered_keys(&self, name: &Name) -> Result<(), Error> {
        let mut keystore = self.keystore()?.borrow_mut();
        if keystore.speaks_of(name.name()) {
            return Ok(());
        }
        for (url, bytes) in self.public_keys(name)?.into_iter().filter(|(url, _)| url.scheme() == "https") {
            for key in PublicKey::read(&bytes, &shown(&url))? {
                self.progress().note(&keystore.add(&Scope::prefix(name.name())?, &key)?);
            }
        }
        Ok(())
    }

    fn signature_at<'s>(&self, named: Option<&'s Path>, beside: &'s Url) -> SignatureAt<'s> {
        match named {
            _ if self.fetcher.options.insecure.image => SignatureAt::Unwanted,
            Some(path) => SignatureAt::File(path),
            None => SignatureAt::Url(beside),
        }
    }

    /// The archive at a URL, if it is what it must be.
    fn fetch_url(&self, url: &Url, signature: SignatureAt<'_>, claims: Claims<'_>) -> Result<Fetched, Error> {
        let address = shown(url);
        let known = self.known(remote::of_url(self.store(), url))?;
        let fetched = match (known, self.policy()) {
            (Some((_, fetched)), PullPolicy::New | PullPolicy::Never) => fetched,
            (None, PullPolicy::Never) => return Err(not_in_store(&address)),
            (Some((remote, fetched)), _) if remote.is_fresh(SystemTime::now()) => {
                self.progress().note(&format!("image for {address} isn't expired, not fetching"));
                fetched
            }
            (known, _) => {
                self.network.ask(async |web| self.download(web, url, signature, claims, known).await)?
            }
        };
        claims.check_name(&fetched.part.manifest, &address)?;
        Ok(fetched)
    }

    /// What a record leads to, if that is still there and good enough.
    fn known(&self, remote: Option<Remote>) -> Result<Option<(Remote, Fetched)>, Error> {
        let usable = |remote: &Remote| remote.was_verified || self.fetcher.options.insecure.image;
        let Some(remote) = remote.filter(usable) else { return Ok(None) };
        let part = self.blob(&remote.blob, &format!("image {}", ImageId::from(&remote.blob)))?;
        if let Some(part) = &part
            && !self.is_trusted(&remote.blob, part.manifest.name().as_str())?
        {
            return Ok(None);
        }
        Ok(part.map(|part| {
            let was_verified = remote.was_verified;
            (remote, Fetched { part, was_verified })
        }))
    }

    async fn download(
        &self,
        web: &Web,
        url: &Url,
        signature: SignatureAt<'_>,
        claims: Claims<'_>,
        known: Option<(Remote, Fetched)>,
    ) -> Result<Fetched, Error> {
        let (address, store) = (shown(url), self.store());
        let early = self.signature(web, signature, &address).await?;
        let key = format!("aci-{}", Digest::of(Algorithm::Sha256, url.as_str().as_bytes()).hex());
        let partial = store.partials().lock(&key, &address, self.progress()).await?;
        // Another hull may have brought it while we waited.
        let now = remote::of_url(store, url);
        if now.as_ref() != known.as_ref().map(|(remote, _)| remote)
            && let Some((_, fetched)) = self.known(now)?
        {
            return Ok(fetched);
        }
        let archive = Archive::new(web, url, known.as_ref().map(|(remote, _)| remote.state.clone()));
        let wanted = Wanted {
            what: &address,
            identity: Identity::Validator { algorithm: Algorithm::Sha256, size_max: claims.download_max() },
        };
        let completed = partial.complete(&wanted, &archive, &web.patience, self.progress()).await;
        if let Some((remote, fetched)) = known
            && archive.is_unchanged()
        {
            self.progress().note(&format!("image for {address} has not changed"));
            let renewed = Remote::of_url(url, remote.blob, remote.was_verified, archive.state());
            remote::put(store, &renewed)?;
            return Ok(fetched);
        }
        let complete = completed?;
        let signature_bytes = match early {
            Early::Unwanted => None,
            Early::Here(bytes) => Some(bytes),
            Early::Later => match self.signature(web, signature, &address).await? {
                Early::Here(bytes) => Some(bytes),
                _ => {
                    let text = format!(
                        "fetch the signature of {address}: the server still has to make it (try again later; \
                         what was downloaded is kept)"
                    );
                    return Err(Error::new(Kind::Untrusted, text));
                }
            },
        };
        let was_verified = signature_bytes.is_some();
        match self.admit(&complete, signature_bytes.as_deref(), claims, &address) {
            Ok(part) => {
                let state = self.state_of(&archive, &complete);
                let blob = part.blob.digest().clone();
                remote::put(store, &Remote::of_url(url, blob, was_verified, state))?;
                complete.remove();
                Ok(Fetched { part, was_verified })
            }
            Err(error) => {
                // What is wrong stays wrong, but for the disk that is full.
                if !matches!(error.kind(), Kind::Host | Kind::NoSpace) {
                    complete.remove();
                }
                Err(error)
            }
        }
    }

    /// The state of what was downloaded: all of it may have been there before the server was asked.
    fn state_of(&self, archive: &Archive<'_>, complete: &Complete) -> State {
        let mut state = archive.state();
        if state.etag.is_none() && state.last_modified.is_none() {
            state.etag = complete.validator().filter(|text| text.ends_with('"')).map(str::to_owned);
        }
        state
    }

    /// Checks a downloaded archive and takes it into the store.
    fn admit(
        &self,
        complete: &Complete,
        signature: Option<&[u8]>,
        claims: Claims<'_>,
        address: &str,
    ) -> Result<Part, Error> {
        let doing = || format!("look at what was downloaded of {address}");
        let size = complete.file().metadata().doing(Kind::Host, doing)?.len();
        let unpack = || {
            let part = self.unpack(complete.file(), address)?;
            let plain_size = part.blob.file().metadata().doing(Kind::Host, doing)?.len();
            claims.check_size(size, plain_size, address)?;
            Ok(part)
        };
        let Some(signature) = signature else { return unpack() };
        let signed = self.verify(signature, complete.file(), address)?;
        let mut signer = None;
        if let Some(name) = claims.name {
            let found = self.covers(&signed, name.name())?;
            Rollback::new(self.store().folder()).accept_image(name, found.created())?;
            signer = Some(found);
        }
        let part = unpack()?;
        let signer = match signer {
            Some(signer) => signer,
            None => self.covers(&signed, part.manifest.name().as_str())?,
        };
        self.note_signer(&part, signer)?;
        Ok(part)
    }

    fn unpack(&self, file: &File, shown: &str) -> Result<Part, Error> {
        let (store, converter) = (self.store(), self.store().converter());
        let mut plain = converter.uncompress(file, WHOLE, shown)?;
        let blob = store.blobs().add_whatever(&mut plain, Algorithm::Sha512, shown)?;
        let manifest = Manifest::of(&blob, converter, shown)?;
        Ok(Part { blob, manifest })
    }

    fn verify(&self, signature: &[u8], file: &File, what: &str) -> Result<Signed, Error> {
        self.keystore()?.borrow().verify(signature, file, what, SystemTime::now())
    }

    fn keystore(&self) -> Result<&RefCell<Keystore>, Error> {
        if self.keystore.get().is_none() {
            let keystore = RefCell::new(Keystore::load(self.fetcher.settings)?);
            let _ = self.keystore.set(keystore); // It was empty a line ago, and nobody else sees it.
        }
        Ok(self.keystore.get().expect("it was just set"))
    }

    fn covers<'s>(&self, signed: &'s Signed, name: &str) -> Result<&'s Signer, Error> {
        let signer = signed.covers(name)?;
        self.progress().note(&format!("signature verified: {}", signer.user_ids().join(", ")));
        Ok(signer)
    }

    async fn signature(&self, web: &Web, at: SignatureAt<'_>, what: &str) -> Result<Early, Error> {
        let missing = |place: &str| {
            let text = format!(
                "fetch {what}: it has no signature ({place}); name one with --signature, or use \
                 --insecure-options=image to trust whoever made the image"
            );
            Error::new(Kind::Untrusted, text)
        };
        match at {
            SignatureAt::Unwanted => Ok(Early::Unwanted),
            SignatureAt::File(path) => read_signature(path).map(Early::Here),
            SignatureAt::Url(url) => match web.document(url, SIGNATURE_MAX as u64, self.progress()).await? {
                Answer::Document(bytes) => Ok(Early::Here(bytes)),
                Answer::Later => Ok(Early::Later),
                Answer::None => Err(missing(&format!("there is none at {}", shown(url)))),
            },
        }
    }

    fn signature_of_file(&self, path: &Path) -> Result<Vec<u8>, Error> {
        if let Some(named) = &self.fetcher.options.signature {
            return read_signature(named);
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".asc");
        let beside = PathBuf::from(beside);
        match read_signature(&beside) {
            Err(e) if *e.kind() == Kind::NotFound => {
                let text = format!(
                    "fetch image {}: it has no signature (there is no {}); name one with --signature, or use \
                     --insecure-options=image to trust whoever made the image",
                    path.display(),
                    beside.display()
                );
                Err(Error::new(Kind::Untrusted, text))
            }
            read => read,
        }
    }

    /// An archive of the store.
    fn blob(&self, digest: &Digest, shown: &str) -> Result<Option<Part>, Error> {
        let Some(blob) = self.store().blobs().get(digest)? else { return Ok(None) };
        let manifest = Manifest::of(&blob, self.store().converter(), shown)?;
        Ok(Some(Part { blob, manifest }))
    }

    /// The archive of the store whose id begins so.
    fn blob_by_id(&self, id: &IdPrefix) -> Result<Option<Part>, Error> {
        let digests = self.store().blobs().beginning(id)?;
        match &*digests {
            [] => Ok(None),
            [digest] => self.blob(digest, &format!("image {}", ImageId::from(digest))),
            _ => Err(Error::new(Kind::Ambiguous, format!("find image {}: there are several", id.as_str()))),
        }
    }

    /// What a name led to, if the pull policy is content with that.
    fn dependency_from_store(&self, name: &Name) -> Result<Option<Part>, Error> {
        let found = self.found.borrow().get(name).cloned();
        if let Some(digest) = found {
            return self.blob(&digest, &format!("image {name}"));
        }
        if self.policy() == PullPolicy::Update {
            return Ok(None);
        }
        if let Some(image) = self.store().find_aci(name)?
            && self.is_trusted(&Digest::from(&image.id), name.name())?
            && let Some(part) = self.blob(&Digest::from(&image.id), &format!("image {name}"))?
        {
            return Ok(Some(part));
        }
        let known = self.known(remote::of_name(self.store(), name))?;
        Ok(known.map(|(_, fetched)| fetched.part))
    }
}

impl Find for AciFetcher<'_> {
    fn find(&self, dependency: &Dependency, name: &Name) -> Result<Part, Error> {
        let part = match &dependency.id {
            Some(id) => self.blob_by_id(id)?,
            None => self.dependency_from_store(name)?,
        };
        let part = match part {
            Some(part) => part,
            None if self.policy() == PullPolicy::Never => return Err(not_in_store(&name.to_string())),
            None => {
                let claims = Claims { name: Some(name), size: dependency.size };
                let Fetched { part, was_verified } = self.discover_and_fetch(name, None, claims)?;
                let digest = part.blob.digest().clone();
                if let Some(id) = &dependency.id
                    && !ImageId::from(&digest).as_str().starts_with(id.as_str())
                {
                    let text = format!(
                        "fetch image {name}: its id is {}, the image that depends on it wants {}",
                        ImageId::from(&digest),
                        id.as_str()
                    );
                    return Err(Error::new(Kind::Corrupt, text));
                }
                remote::put(self.store(), &Remote::of_name(name, digest, was_verified))?;
                part
            }
        };
        if dependency.id.is_none() {
            self.found.borrow_mut().insert(name.clone(), part.blob.digest().clone());
        }
        Ok(part)
    }
}

/// Why none of several places would do. The kind is that of the place that came closest.
fn of_places(name: &Name, mut failures: Vec<Error>) -> Error {
    let closest = |error: &Error| match error.kind() {
        Kind::NotFound | Kind::Network | Kind::Unauthorized => 2,
        Kind::Untrusted => 1,
        _ => 0,
    };
    failures.sort_by_key(closest);
    let said = failures.iter().map(|e| hull_errors::chain(e)).collect::<Vec<_>>().join("; ");
    let kind = failures.first().map_or(Kind::NotFound, |e| *e.kind());
    match <[Error; 1]>::try_from(failures) {
        Ok([only]) => only,
        Err(several) => {
            Error::new(kind, format!("fetch image {name}: none of {} places has it: {said}", several.len()))
        }
    }
}

fn read_signature(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = open_regular(path)?.take(SIGNATURE_MAX as u64 + 1).read_to_end(&mut bytes);
    read.doing(Kind::Host, || format!("read signature {}", path.display()))?;
    Ok(bytes)
}

fn not_in_store(name: &str) -> Error {
    let text = format!("find image {name}: the store has none, and --pull-policy=never forbids to fetch it");
    Error::new(Kind::NotFound, text)
}
