//! From a reference to an image in the store, wherever it has to come from.

use std::fmt;

use crate::appc::AciFetcher;
use crate::store::Imported;
use crate::{Error, FetchOptions, Kind, PlainName, Progress, Reference, SettingsFolders, Store};

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
        match reference {
            Reference::Url(url) => AciFetcher::new(self)?.by_url(url),
            Reference::Plain(PlainName { appc: Some(name), registry: None }) => {
                AciFetcher::new(self)?.by_name(name)
            }
            Reference::Registry(_) | Reference::Plain(_) => {
                let text = format!("fetch image {reference}: this build knows no network");
                Err(Error::new(Kind::Unsupported, text))
            }
            _ => self.store.import(reference),
        }
    }
}
