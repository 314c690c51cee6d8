//! From a name to the layers in the store.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use futures_util::{StreamExt, TryStreamExt, stream};
use hull_errors::{Doing, chain};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LINK, RANGE};
use reqwest::{Client, Method, Response, StatusCode};
use tokio::runtime::{Builder, Runtime};

use super::Name;
use super::endpoint::{Answer, Endpoint, headers, plain};
use crate::blobs::{Blobs, DOCUMENT_MAX, Verified, VerifiedBytes};
use crate::digest::{Algorithm, Digest, ImageId};
use crate::document::{
    Descriptor, DocumentKind, INDEXES, MANIFESTS, Manifest, NESTED_MAX, Several, by_platform, document_kind,
    read_index,
};
use crate::settings::Login;
use crate::settings::certificates::Certificates;
use crate::settings::docker_auth::Keychain;
use crate::settings::registries::Registries;
use crate::store::Prepared;
use crate::transport::client::{Trust, special_client};
use crate::transport::partial::{Identity, Partials, Source, Wanted};
use crate::transport::retry::{Failure, Patience};
use crate::trust::{Admitted, Artifacts};
use crate::{Error, Insecure, Kind, Progress, SettingsFolders, Store};

/// How many blobs of an image are fetched at once.
const PARALLEL_MAX: usize = 4;

/// Most pages of referrers that are read.
const PAGES_MAX: usize = 16;

/// The header that names the digest of a manifest (distribution-spec v1.1, "Pulling manifests").
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What servers call a document when they do not know better; then the document itself says what it is.
const ANY_TYPES: [&str; 4] = ["", "application/json", "application/octet-stream", "text/plain"];

/// Everything that is known about registries, for one fetch.
pub(crate) struct Registry<'a> {
    runtime: Runtime,
    folders: SettingsFolders,
    registries: Registries,
    pub(super) keychain: Keychain,
    pub(super) insecure: Insecure,
    partials: Partials,
    pub(super) patience: Patience,
    pub(super) progress: &'a dyn Progress,
}

impl<'a> Registry<'a> {
    /// Reads what is configured. `logins` are the settings' own, `variables` the environment, which says where the
    /// user's credentials are.
    ///
    /// # Errors
    /// [`Kind::Host`] for files that are wrong.
    pub(crate) fn new(
        store: &Store,
        folders: &SettingsFolders,
        logins: BTreeMap<String, Login>,
        variables: impl Fn(&str) -> Option<OsString>,
        insecure: Insecure,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            runtime: runtime.doing(Kind::Host, || "prepare to use the network".into())?,
            registries: Registries::load(folders)?,
            keychain: Keychain::new(variables, folders, logins),
            folders: folders.clone(),
            insecure,
            partials: store.partials(),
            patience: Patience::default(),
            progress,
        })
    }

    /// The digest that the registry names for a tag now, for the price of one request without an answer's body.
    /// `None` if it does not say.
    ///
    /// # Errors
    /// As [`Registry::resolve`].
    pub(crate) fn digest_of(&self, name: &Name) -> Result<Option<Digest>, Error> {
        if let Some(digest) = name.digest() {
            return Ok(Some(digest.clone()));
        }
        let servers = self.servers(name)?;
        let found = servers.one(async |server| {
            let path = format!("manifests/{}", name.tag().unwrap_or_default());
            match server.head(&path, &manifest_types()).await {
                Ok(headers) => Ok(content_digest(&headers)),
                // Not all know HEAD; what they say to GET counts then.
                Err(e) if *e.kind() == Kind::Network => Ok(None),
                Err(e) => Err(e),
            }
        });
        self.runtime.block_on(found).map_err(|e| fetching(name, e))
    }

    /// Finds the manifest that a name means on this host. Fetches documents only, none that the store has.
    ///
    /// # Errors
    /// Whatever [`Kind`] names but `Ambiguous` and `NoSpace`.
    pub(crate) fn resolve(&self, name: &Name, blobs: &Blobs) -> Result<Resolved<'_>, Error> {
        let servers = self.servers(name)?;
        let found = self.runtime.block_on(self.find(name, &servers, blobs));
        let (named, manifest, text) = found.map_err(|e| fetching(name, e))?;
        Ok(Resolved { registry: self, name: name.clone(), servers, named, manifest, text })
    }

    async fn find(
        &self,
        name: &Name,
        servers: &Servers<'_>,
        blobs: &Blobs,
    ) -> Result<(Digest, Digest, Vec<u8>), Error> {
        if let Some(digest) = name.digest()
            && let Some(blob) = blobs.get(digest)?
        {
            let text = blob.document()?.as_slice().to_vec();
            document_kind(&text, None, &format!("manifest {digest}"))?;
            return Ok((digest.clone(), digest.clone(), text));
        }
        servers.one(async |server| descend(server, name).await).await
    }

    fn servers(&self, name: &Name) -> Result<Servers<'_>, Error> {
        let places = self.registries.places(name)?;
        let endpoints = places.into_iter().map(|place| Endpoint::new(self, place)).collect();
        Ok(Servers { endpoints, current: Cell::new(0), progress: self.progress })
    }

    /// A client for one registry.
    pub(super) fn client_for(&self, host: &str, insecure: bool) -> Result<Client, Error> {
        let (trust, certificates) = self.trust(host, insecure)?;
        special_client(&trust, certificates.identity, true)
    }

    pub(super) fn client_without_redirects(&self, host: &str, insecure: bool) -> Result<Client, Error> {
        let (trust, certificates) = self.trust(host, insecure)?;
        special_client(&trust, certificates.identity, false)
    }

    fn trust(&self, host: &str, insecure: bool) -> Result<(Trust, Certificates), Error> {
        let mut certificates = Certificates::load(&self.folders, host)?;
        let authorities = std::mem::take(&mut certificates.authorities);
        let anybody = insecure || self.insecure.tls;
        Ok((if anybody { Trust::Anybody } else { Trust::Authorities(authorities) }, certificates))
    }
}

fn fetching(name: &Name, error: Error) -> Error {
    Error::because(*error.kind(), format!("fetch image {name}"), error)
}

/// The servers that may have an image, and the one that had something last.
struct Servers<'a> {
    endpoints: Vec<Endpoint<'a>>,
    current: Cell<usize>,
    progress: &'a dyn Progress,
}

impl<'a> Servers<'a> {
    /// Asks one server after the other until one can answer.
    async fn one<T>(&self, ask: impl AsyncFn(&Endpoint<'a>) -> Result<T, Error>) -> Result<T, Error> {
        let count = self.endpoints.len();
        let first = self.current.get();
        let mut index = first;
        loop {
            match ask(&self.endpoints[index]).await {
                Ok(answer) => {
                    self.current.set(index);
                    return Ok(answer);
                }
                // Elsewhere the disk is as full.
                Err(e) if matches!(e.kind(), Kind::Host | Kind::NoSpace) => return Err(e),
                Err(e) => {
                    index = (index + 1) % count;
                    if index == first {
                        return Err(e);
                    }
                    self.progress.note(&format!(
                        "{}; asking {} instead",
                        chain(&e),
                        self.endpoints[index].host()
                    ));
                }
            }
        }
    }
}

/// Goes from what a name names down to the manifest for this host.
async fn descend(server: &Endpoint<'_>, name: &Name) -> Result<(Digest, Digest, Vec<u8>), Error> {
    let place = server.place.name.without_tag();
    let mut document = match name.digest() {
        Some(digest) => manifest(server, digest, None).await?,
        None => tagged(server, name.tag().unwrap_or_default()).await?,
    };
    let named = document.digest.clone();
    for _ in 0..NESTED_MAX {
        if document.kind == DocumentKind::Manifest {
            return Ok((named, document.digest, document.text));
        }
        let what = format!("index {} of {place}", document.digest);
        let chosen = by_platform(read_index(&document.text, &what)?, Several::OneImage, &what)?;
        document = manifest(server, &chosen.digest, Some(&chosen)).await?;
    }
    let text = format!("read {place}: more than {NESTED_MAX} indexes inside each other");
    Err(Error::new(Kind::Corrupt, text))
}

/// A document of a registry: its digest is that of its bytes.
struct Document {
    digest: Digest,
    kind: DocumentKind,
    text: Vec<u8>,
}

/// What a tag names.
async fn tagged(server: &Endpoint<'_>, tag: &str) -> Result<Document, Error> {
    let answer = server.get(&format!("manifests/{tag}"), &manifest_types(), DOCUMENT_MAX).await?;
    let said = content_digest(&answer.headers);
    let algorithm = said.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
    let digest = Digest::of(algorithm, &answer.body);
    if said.is_some_and(|said| said != digest) {
        let place = server.place.name.without_tag();
        let text =
            format!("read {place}:{tag}: the manifest has another digest than the registry says: {digest}");
        return Err(Error::new(Kind::Corrupt, text));
    }
    Document::new(answer, digest, None)
}

/// What a digest names; a descriptor tells more of it.
async fn manifest(
    server: &Endpoint<'_>,
    digest: &Digest,
    named: Option<&Descriptor>,
) -> Result<Document, Error> {
    let answer = server.get(&format!("manifests/{digest}"), &manifest_types(), DOCUMENT_MAX).await?;
    let size = named.map_or(answer.body.len() as u64, |named| named.size);
    VerifiedBytes::read(&mut &*answer.body, digest, size)?;
    Document::new(answer, digest.clone(), named.map(|named| named.media_type.as_str()))
}

impl Document {
    fn new(answer: Answer, digest: Digest, named: Option<&str>) -> Result<Self, Error> {
        let said = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let said = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let said = Some(&*said).filter(|said| !ANY_TYPES.contains(said));
        let what = format!("manifest {digest}");
        let kind = document_kind(&answer.body, said.or(named), &what)?;
        if let (Some(said), Some(named)) = (said, named)
            && said != named
        {
            let text = format!("read {what}: the index says it is `{named}`, the registry `{said}`");
            return Err(Error::new(Kind::Corrupt, text));
        }
        Ok(Self { digest, kind, text: answer.body })
    }
}

fn manifest_types() -> String {
    [MANIFESTS, INDEXES].concat().join(", ")
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// An image of which we know what it is, and have no layers yet.
pub(crate) struct Resolved<'a> {
    registry: &'a Registry<'a>,
    name: Name,
    servers: Servers<'a>,
    named: Digest,
    manifest: Digest,
    text: Vec<u8>,
}

impl Resolved<'_> {
    /// The digest of what the tag names: an index, or the manifest itself.
    pub(crate) fn named(&self) -> &Digest {
        &self.named
    }

    /// The digest of the manifest for this host.
    pub(crate) fn manifest_digest(&self) -> &Digest {
        &self.manifest
    }

    pub(crate) fn id(&self) -> ImageId {
        ImageId::from(&self.manifest)
    }

    /// Brings configuration and layers of an image that may be used into the store, those that it has not.
    ///
    /// # Errors
    /// Whatever [`Kind`] names. What has arrived stays, for the next try.
    pub(crate) fn pull(&self, _: &Admitted, blobs: &Blobs) -> Result<Prepared, Error> {
        self.registry.runtime.block_on(self.bring(blobs)).map_err(|e| fetching(&self.name, e))
    }

    async fn bring(&self, blobs: &Blobs) -> Result<Prepared, Error> {
        let name = self.name.to_string();
        if blobs.get(&self.manifest)?.is_none() {
            blobs.add(&mut &*self.text, &self.manifest, Some(self.text.len() as u64))?;
        }
        let manifest = Manifest::parse(&self.text, &name)?;
        let config = self.blob(&manifest.config, "configuration", blobs).await?.document()?;
        let image = manifest.configured(name, &config)?;
        // A layer may be in an image twice.
        let mut seen = BTreeSet::new();
        let layers = image.layers().filter(|layer| seen.insert(layer.digest.clone()));
        let layers = layers.map(|layer| self.blob(layer, "layer", blobs));
        stream::iter(layers).buffer_unordered(PARALLEL_MAX).try_for_each(async |_| Ok(())).await?;
        image.prepare(|layer| {
            let blob = blobs.get(&layer.digest)?;
            // It was there a moment ago.
            blob.ok_or_else(|| Error::new(Kind::Host, format!("open blob {}: it was removed", layer.digest)))
        })
    }

    async fn blob(&self, wanted: &Descriptor, what: &str, blobs: &Blobs) -> Result<Verified, Error> {
        let digest = &wanted.digest;
        if let Some(blob) = blobs.get(digest)? {
            return Ok(blob);
        }
        let Registry { partials, patience, progress, .. } = self.registry;
        let what = &format!("{what} {}", &digest.hex()[..12]);
        let key = format!("{}-{}", digest.algorithm().name(), digest.hex());
        self.servers
            .one(async |server| {
                let partial = partials.lock(&key, what, *progress).await?;
                if let Some(blob) = blobs.get(digest)? {
                    return Ok(blob);
                }
                let identity = Identity::Digest { digest, size: wanted.size };
                let source = Blob { server, digest };
                let complete =
                    partial.complete(&Wanted { what, identity }, &source, patience, *progress).await?;
                blobs.adopt(complete, digest)
            })
            .await
    }
}

/// A blob at one server.
struct Blob<'a> {
    server: &'a Endpoint<'a>,
    digest: &'a Digest,
}

impl Source for Blob<'_> {
    async fn open(&self, offset: u64, _: Option<&str>) -> Result<Response, Failure> {
        let path = format!("blobs/{}", self.digest);
        let mut headers = headers(RANGE, &format!("bytes={offset}-"));
        if offset == 0 {
            headers.remove(RANGE);
        }
        let response = self.server.ask(Method::GET, &path, &headers).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            Ok(response)
        } else {
            plain(response, "fetch a blob")
        }
    }
}

/// A registry that has none answers so.
fn absent<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(e) if *e.kind() == Kind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

impl Artifacts for Resolved<'_> {
    fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>, Error> {
        let found = self.servers.one(async |server| {
            if let Ok(digest) = reference.parse::<Digest>() {
                return manifest_bytes(server, &digest).await;
            }
            let path = Name::parse(&format!("{}:{reference}", self.name.without_tag()))?;
            let path = format!("manifests/{}", path.tag().unwrap_or_default());
            Ok(server.get(&path, &manifest_types(), DOCUMENT_MAX).await?.body)
        });
        absent(self.registry.runtime.block_on(found)).map_err(|e| fetching(&self.name, e))
    }

    fn referrers(&self, subject: &Digest) -> Result<Vec<(Digest, String)>, Error> {
        let found = self.servers.one(async |server| referrers(server, subject).await);
        self.registry.runtime.block_on(found).map_err(|e| fetching(&self.name, e))
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        if size > DOCUMENT_MAX {
            let text =
                format!("read blob {digest}: it has {size} bytes, at most {DOCUMENT_MAX} are accepted");
            return Err(fetching(&self.name, Error::new(Kind::TooLarge, text)));
        }
        let found = self.servers.one(async |server| {
            let answer = server.get(&format!("blobs/{digest}"), "*/*", size).await?;
            VerifiedBytes::read(&mut &*answer.body, digest, size)?;
            Ok(answer.body)
        });
        self.registry.runtime.block_on(found).map_err(|e| fetching(&self.name, e))
    }
}

async fn manifest_bytes(server: &Endpoint<'_>, digest: &Digest) -> Result<Vec<u8>, Error> {
    let answer = server.get(&format!("manifests/{digest}"), &manifest_types(), DOCUMENT_MAX).await?;
    VerifiedBytes::read(&mut &*answer.body, digest, answer.body.len() as u64)?;
    Ok(answer.body)
}

/// distribution-spec v1.1, "Listing Referrers"; and "Unavailable Referrers API" for what was before.
async fn referrers(server: &Endpoint<'_>, subject: &Digest) -> Result<Vec<(Digest, String)>, Error> {
    let mut path = format!("referrers/{subject}");
    let mut found = Vec::new();
    for page in 0..PAGES_MAX {
        let answer = match absent(server.get(&path, INDEXES[0], DOCUMENT_MAX).await)? {
            Some(answer) => answer,
            None if page == 0 => {
                let tag = format!("manifests/{}-{}", subject.algorithm().name(), subject.hex());
                match absent(server.get(&tag, INDEXES[0], DOCUMENT_MAX).await)? {
                    Some(answer) => answer,
                    None => return Ok(found),
                }
            }
            None => return Ok(found),
        };
        let what = format!("the referrers of {subject}");
        found.extend(read_index(&answer.body, &what)?.into_iter().map(|d| (d.digest, d.artifact_type)));
        match next_page(&answer.headers) {
            Some(query) => path = format!("referrers/{subject}?{query}"),
            None => return Ok(found),
        }
    }
    let text = format!("read the referrers of {subject}: more than {PAGES_MAX} pages");
    Err(Error::new(Kind::TooLarge, text))
}

/// The query of `Link: </v2/…?QUERY>; rel="next"` (RFC 8288): of the address nothing else is believed.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = rest.replace([' ', '"'], "").split(';').any(|part| part == "rel=next");
    let query = target.split_once('?')?.1;
    (is_next && query.bytes().all(|b| b.is_ascii_graphic() && b != b'#')).then(|| query.to_owned())
}

/// A way in for the fuzzer.
pub(super) fn fuzz(headers: &HeaderMap) {
    if let Some(query) = next_page(headers) {
        let path = format!("https://example.com/v2/a/referrers/x?{query}");
        let url = url::Url::parse(&path).expect("it is an address with any query");
        assert_eq!(url.path(), "/v2/a/referrers/x", "a page is of the same list");
    }
}
