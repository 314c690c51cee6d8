//! What it takes to ask other hosts: set up by the first question, for what the store has needs none.

use std::cell::OnceCell;

use hull_errors::Doing;
use tokio::runtime::{Builder, Runtime};

use super::credentials::Clear;
use super::web::Web;
use crate::settings::Settings;
use crate::transport::client::Trust;
use crate::transport::retry::Patience;
use crate::{Error, Fetcher, Kind};

/// The network as a [`Fetcher`] wants it used.
pub(super) struct Network<'a> {
    fetcher: &'a Fetcher<'a>,
    authorities: Vec<reqwest::Certificate>,
    patience: Patience,
    ready: OnceCell<Ready>,
}

struct Ready {
    web: Web,
    runtime: Runtime,
}

impl<'a> Network<'a> {
    /// Nothing yet. `authorities` are believed besides the host's.
    pub(super) fn new(
        fetcher: &'a Fetcher<'a>,
        authorities: Vec<reqwest::Certificate>,
        patience: Patience,
    ) -> Self {
        Self { fetcher, authorities, patience, ready: OnceCell::new() }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Kind::Host`] for settings that are wrong; those of `ask`.
    pub(super) fn ask<'s, T>(
        &'s self,
        ask: impl AsyncFnOnce(&'s Web) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.ready.get().is_none() {
            let _ = self.ready.set(self.set_up()?); // It was empty a line ago, and nobody else sees it.
        }
        let Ready { web, runtime } = self.ready.get().expect("it was just set");
        runtime.block_on(ask(web))
    }

    fn set_up(&self) -> Result<Ready, Error> {
        let fetcher = self.fetcher;
        let settings = Settings::load(fetcher.settings)?;
        settings.warnings().iter().for_each(|warning| fetcher.progress.warn(warning));
        let insecure = &fetcher.options.insecure;
        let trust = if insecure.tls { Trust::Anybody } else { Trust::Authorities(self.authorities.clone()) };
        let clear = if insecure.http { Clear::Allowed } else { Clear::Refused };
        let runtime = Builder::new_current_thread().enable_all().build();
        let web = Web::new(trust, fetcher.settings.clone(), settings, clear, self.patience);
        Ok(Ready { web, runtime: runtime.doing(Kind::Host, || "set up the network".into())? })
    }
}
