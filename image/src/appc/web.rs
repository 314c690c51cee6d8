//! Requests for images and what goes with them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::time::SystemTime;

use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::credentials::{Clear, headers, host_header};
use super::remote::State;
use crate::settings::Settings;
use crate::settings::certificates::Certificates;
use crate::transport::client::{Trust, client, special_client};
use crate::transport::partial::Source;
use crate::transport::retry::{Failure, Patience, accepted, persist};
use crate::{Error, Kind, Progress, SettingsFolders};

/// How the servers of images are asked.
pub(super) struct Web {
    trust: Trust,
    folders: SettingsFolders,
    settings: Settings,
    pub(super) clear: Clear,
    pub(super) patience: Patience,
    /// For hosts of which `certs.d` says nothing.
    ordinary: OnceCell<Client>,
    /// For the others that were asked, under what `certs.d` calls them.
    special: RefCell<BTreeMap<String, Client>>,
}

/// A short document, or what there was instead.
pub(super) enum Answer {
    Document(Vec<u8>),
    /// The server has it later (202).
    Later,
    None,
}

impl Web {
    pub(super) fn new(
        trust: Trust,
        folders: SettingsFolders,
        settings: Settings,
        clear: Clear,
        patience: Patience,
    ) -> Self {
        let (ordinary, special) = (OnceCell::new(), RefCell::default());
        Self { trust, folders, settings, clear, patience, ordinary, special }
    }

    /// The client for a host, whoever it redirects to.
    fn client(&self, url: &Url) -> Result<Client, Error> {
        let host = host_header(url);
        if let Some(client) = self.special.borrow().get(&host) {
            return Ok(client.clone());
        }
        // A host whose name is no name of a folder has none.
        let is_name = !host.starts_with('.') && !host.is_empty();
        let found = if is_name { Certificates::load(&self.folders, &host)? } else { Certificates::default() };
        if found.authorities.is_empty() && found.identity.is_none() {
            if self.ordinary.get().is_none() {
                let _ = self.ordinary.set(client(&self.trust)?); // It was empty a line ago.
            }
            return Ok(self.ordinary.get().expect("it was just set").clone());
        }
        let client = special_client(&self.trust.clone().and(found.authorities), found.identity, true)?;
        self.special.borrow_mut().insert(host, client.clone());
        Ok(client)
    }

    async fn get(&self, url: &Url, others: &[(&'static str, String)]) -> Result<Response, Failure> {
        let headers = headers(&self.settings, url, others, self.clear, SystemTime::now());
        let sent = self.client(url).map_err(Failure::Lasting)?.get(url.clone()).headers(headers).send().await;
        sent.map_err(|e| Failure::of(e, &format!("fetch {}", shown(url))))
    }

    /// A document of at most `size_max` bytes.
    ///
    /// # Errors
    /// [`Kind::Network`], [`Kind::Unauthorized`], [`Kind::TooLarge`].
    pub(super) async fn document(
        &self,
        url: &Url,
        size_max: u64,
        progress: &dyn Progress,
    ) -> Result<Answer, Error> {
        let shown = shown(url);
        persist(&self.patience, progress, async || {
            let response = self.get(url, &[]).await?;
            match response.status() {
                StatusCode::ACCEPTED => return Ok(Answer::Later),
                StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Answer::None),
                _ => (),
            }
            let mut response = accepted(response, &format!("fetch {shown}")).await?;
            let mut body = Vec::new();
            while let Some(chunk) =
                response.chunk().await.map_err(|e| Failure::of(e, &format!("fetch {shown}")))?
            {
                body.extend_from_slice(&chunk);
                if body.len() as u64 > size_max {
                    let text = format!("fetch {shown}: more than {size_max} bytes");
                    return Err(Failure::Lasting(Error::new(Kind::TooLarge, text)));
                }
            }
            Ok(Answer::Document(body))
        })
        .await
    }
}

/// A URL in errors: what is in front of the host may be a password, and what follows the path a token.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None); // Those that cannot have one have none.
    let _ = url.set_username(""); // Likewise.
    url.set_query(None);
    url.set_fragment(None);
    crate::error::shown(url.as_str().as_bytes())
}

/// An image at a URL.
pub(super) struct Archive<'a> {
    web: &'a Web,
    url: &'a Url,
    /// What the store has of it.
    known: Option<State>,
    state: RefCell<Option<State>>,
    unchanged: Cell<bool>,
}

impl<'a> Archive<'a> {
    pub(super) fn new(web: &'a Web, url: &'a Url, known: Option<State>) -> Self {
        Self { web, url, known, state: RefCell::new(None), unchanged: Cell::new(false) }
    }

    /// What the server said with the bytes, or instead of them.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone().unwrap_or_default()
    }

    /// Whether the server said that it has what the store has (304).
    pub(super) fn is_unchanged(&self) -> bool {
        self.unchanged.get()
    }
}

impl Source for Archive<'_> {
    async fn open(&self, offset: u64, validator: Option<&str>) -> Result<Response, Failure> {
        let mut others = Vec::new();
        if offset > 0 {
            // Without a name for the state, a part of one and a part of another would be put together.
            if let Some(validator) = validator {
                others.push(("range", format!("bytes={offset}-")));
                others.push(("if-range", validator.to_owned()));
            }
        } else if let Some(known) = &self.known {
            others.extend(known.etag.clone().map(|etag| ("if-none-match", etag)));
            others.extend(known.last_modified.clone().map(|time| ("if-modified-since", time)));
        }
        let response = self.web.get(self.url, &others).await?;
        let now = SystemTime::now();
        match (response.status(), &self.known) {
            (StatusCode::NOT_MODIFIED, Some(known)) if offset == 0 => {
                self.unchanged.set(true);
                *self.state.borrow_mut() = Some(known.renewed(response.headers(), now));
                let text = format!("fetch {}: it has not changed", shown(self.url));
                Err(Failure::Lasting(Error::new(Kind::Network, text)))
            }
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => {
                *self.state.borrow_mut() = Some(State::of(response.headers(), now));
                Ok(response)
            }
            // 202 and other successes bring no image.
            (status, _) if status.is_success() => {
                let text = format!("fetch {}: the server answers {status}, not an image", shown(self.url));
                Err(Failure::Lasting(Error::new(Kind::Network, text)))
            }
            _ => Ok(response),
        }
    }
}
