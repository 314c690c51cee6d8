//! From a reference to an image in the store, wherever it has to come from, if it may be used at all.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use crate::appc::AciFetcher;
use crate::catalog::aci_name;
use crate::digest::Digest;
use crate::import::{self, Guessed, Remembered};
use crate::names::NamedImage;
use crate::registry::{self, Registry};
use crate::settings::Settings;
use crate::store::Imported;
use crate::trust::{Admitted, Policy, Rollback, Transport, Wanted};
use crate::{Error, FetchOptions, Kind, PlainName, Progress, PullPolicy, Reference, SettingsFolders, Store};

/// Brings images into a store, as a user wants them.
pub struct Fetcher<'a> {
    pub store: &'a Store,
    pub settings: &'a SettingsFolders,
    pub options: &'a FetchOptions,
    pub progress: &'a dyn Progress,
}

impl fmt::Debug for Fetcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Fetcher");
        shown.field("store", self.store).field("settings", self.settings).field("options", self.options);
        shown.finish_non_exhaustive()
    }
}

impl Fetcher<'_> {
    /// The image that `reference` means: from the store if the pull policy lets it, else from where it is.
    ///
    /// # Errors
    /// Whatever [`Kind`] names. What was downloaded and found right stays for the next try, and nothing else.
    pub fn fetch(&self, reference: &Reference) -> Result<Imported, Error> {
        let _hold = self.store.hold()?;
        match reference {
            Reference::Id(_) => (),
            Reference::OciLayout { path, tag } => self.admit(&[Transport::Oci], path, tag.as_deref())?,
            Reference::OciArchive { path, tag } => {
                self.admit(&[Transport::OciArchive], path, tag.as_deref())?;
            }
            Reference::DockerArchive { path, name } => {
                self.admit(&[Transport::DockerArchive], path, name.as_deref())?;
            }
            Reference::Path(path) if path.is_dir() => self.admit(&[Transport::Oci], path, None)?,
            Reference::Path(path) => return self.file(path),
            Reference::Url(url) => return AciFetcher::new(self).by_url(url),
            Reference::Registry(name) => return self.of_registry(name),
            Reference::Plain(name) => return self.plain(name),
        }
        self.store.import(reference)
    }

    /// Whether the policy lets an image in a file or folder be used, whichever of these it turns out to be.
    fn admit(&self, transports: &[Transport], path: &Path, tag: Option<&str>) -> Result<(), Error> {
        // What is not there is for the import to complain about.
        let Ok(path) = path.canonicalize() else { return Ok(()) };
        if self.options.insecure.image {
            return Ok(());
        }
        let policy = self.policy()?;
        transports.iter().try_for_each(|transport| policy.judge_local(*transport, &path, tag).map(drop))
    }

    fn policy(&self) -> Result<Policy, Error> {
        let policy = Policy::load(self.settings)?;
        policy.warnings().iter().for_each(|warning| self.progress.warn(warning));
        Ok(policy)
    }

    /// A file of any kind. An ACI needs a signature, which is looked at before anything in the file is.
    fn file(&self, path: &Path) -> Result<Imported, Error> {
        match import::guessed(self.store, path)? {
            Guessed::Aci => {
                let remembered =
                    if self.options.insecure.image { Remembered::Aci } else { Remembered::SignedAci };
                let fetcher = AciFetcher::new(self);
                let mut imported = import::once(self.store, path, remembered, || fetcher.file(path))?;
                let image = &imported.image;
                let name = aci_name(&image.name, &image.config.labels);
                if !fetcher.is_trusted(&Digest::from(&image.id), name)? {
                    imported = fetcher.file(path)?;
                }
                self.store.touch(&imported.image.id);
                Ok(imported)
            }
            Guessed::Archive => {
                // Which of the two it is shows only inside: both must be allowed.
                self.admit(&[Transport::OciArchive, Transport::DockerArchive], path, None)?;
                let imported = import::archive(self.store, path)?;
                self.store.touch(&imported.image.id);
                Ok(imported)
            }
        }
    }

    /// A name that may be an ACI's or that of an image in a registry: first what the store has, then what
    /// discovery finds, as rkt did; then the registry.
    fn plain(&self, name: &PlainName) -> Result<Imported, Error> {
        let Some(of_registry) = &name.registry else {
            let appc = name.appc.as_ref().expect("a plain name is one of the two at least");
            return AciFetcher::new(self).by_name(appc);
        };
        if let Some(appc) = &name.appc
            && self.options.pull != PullPolicy::Update
            && self.store.find_aci(appc)?.is_some()
        {
            return AciFetcher::new(self).by_name(appc);
        }
        let Some(appc) = name.discoverable().filter(|_| self.may_ask(of_registry)) else {
            return self.of_registry(of_registry);
        };
        match AciFetcher::new(self).by_name(appc) {
            Err(why) if matches!(why.kind(), Kind::NotFound | Kind::Network) => {
                self.progress.note(&format!(
                    "no App Container Image is called {appc} ({}), trying docker://{of_registry}",
                    hull_errors::chain(&why)
                ));
                self.of_registry(of_registry)
            }
            done => done,
        }
    }

    /// Whether the network is to be asked at all.
    fn may_ask(&self, name: &registry::Name) -> bool {
        let is_known = || self.store.named(&key(name)).is_ok_and(|known| known.is_some());
        match self.options.pull {
            PullPolicy::Never => false,
            PullPolicy::Update => true,
            PullPolicy::New => !is_known(),
        }
    }

    /// What the store has counts as long as the policy asks for what it asked for when that was admitted.
    fn of_registry(&self, name: &registry::Name) -> Result<Imported, Error> {
        let known = self.store.named(&key(name))?;
        if known.is_none() && self.options.pull == PullPolicy::Never {
            let text = format!("find image {name}: it is not in the store (--pull-policy=new fetches it)");
            return Err(Error::new(Kind::NotFound, text));
        }
        let checks = !self.options.insecure.image;
        let rule = if checks { self.policy()?.rule(name)? } else { None };
        let holds = |known: &NamedImage| known.admitted && rule.is_some() && known.rule == rule;
        let known = known.filter(|known| !checks || holds(known));
        match (self.options.pull, known) {
            (PullPolicy::New | PullPolicy::Never, Some(known)) => self.known(&known),
            // What a digest names does not change.
            (PullPolicy::Update, Some(known)) if name.digest().is_some() => self.known(&known),
            (PullPolicy::Never, None) => {
                let text = format!(
                    "find image {name}: the store has it, but it was not admitted by what the policy asks for now \
                     (--pull-policy=new asks the registry again)"
                );
                Err(Error::new(Kind::Untrusted, text))
            }
            (_, known) => self.ask_registry(name, known, rule),
        }
    }

    fn known(&self, known: &NamedImage) -> Result<Imported, Error> {
        self.store.touch(&known.image);
        Ok(Imported { image: self.store.get(&known.image)?, converted: false })
    }

    fn ask_registry(
        &self,
        name: &registry::Name,
        known: Option<NamedImage>,
        rule: Option<String>,
    ) -> Result<Imported, Error> {
        let settings = Settings::load(self.settings)?;
        settings.warnings().iter().for_each(|warning| self.progress.warn(warning));
        let registry = Registry::new(
            self.store,
            self.settings,
            settings.registries().clone(),
            |name| std::env::var_os(name),
            self.options.insecure,
            self.progress,
        )?;
        if let Some(known) = known
            && known.digest.is_some()
            && known.digest == registry.digest_of(name)?.map(|digest| digest.to_string())
        {
            let again = NamedImage { fetched: SystemTime::now(), ..known.clone() };
            self.store.put_name(&again)?;
            return self.known(&known);
        }
        let blobs = self.store.blobs();
        let resolved = registry.resolve(name, blobs)?;
        let admitted = self.judge(name, &resolved)?;
        let imported = self.store.make(&resolved.id(), || resolved.pull(&admitted, blobs))?;
        self.store.put_name(&NamedImage {
            digest: Some(resolved.named().to_string()),
            admitted: !self.options.insecure.image,
            rule,
            latest: name.tag() == Some("latest"),
            ..NamedImage::new(key(name), imported.image.id.clone())
        })?;
        self.store.touch(&imported.image.id);
        Ok(imported)
    }

    /// Before anything but the manifest is fetched.
    fn judge(&self, name: &registry::Name, resolved: &registry::Resolved<'_>) -> Result<Admitted, Error> {
        if self.options.insecure.image {
            return Ok(Admitted::unchecked(&name.to_string()));
        }
        let wanted = Wanted { name, named: resolved.named(), platform: resolved.manifest_digest() };
        let admitted = self.policy()?.judge(&wanted, resolved, &Rollback::new(self.store.folder()))?;
        self.progress.note(&admitted.to_string());
        Ok(admitted)
    }
}

/// The canonical form of a registry's name, as the store remembers it.
fn key(name: &registry::Name) -> String {
    format!("docker://{name}")
}
