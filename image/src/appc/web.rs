//! Requests for images and what goes with them.

use std::cell::{Cell, OnceCell, RefCell};
use std::time::SystemTime;

use reqwest::{Response, StatusCode};
use url::Url;

use super::credentials::{Clear, headers};
use super::remote::State;
use crate::settings::Settings;
use crate::transport::client::{Trust, client};
use crate::transport::partial::Source;
use crate::transport::retry::{Failure, Patience, accepted, persist};
use crate::{Error, Kind, Progress};

/// How the servers of images are asked.
pub(super) struct Web {
    pub(super) trust: Trust,
    /// Set up by the first request: what the store has needs none.
    pub(super) client: OnceCell<reqwest::Client>,
    pub(super) settings: Settings,
    pub(super) clear: Clear,
    pub(super) patience: Patience,
}

/// A short document, or what there was instead.
pub(super) enum Answer {
    Document(Vec<u8>),
    /// The server has it later (202).
    Later,
    None,
}

impl Web {
    fn client(&self) -> Result<&reqwest::Client, Error> {
        if self.client.get().is_none() {
            let _ = self.client.set(client(&self.trust)?); // It was empty a line ago, and nobody else sees it.
        }
        Ok(self.client.get().expect("it was just set"))
    }

    async fn get(&self, url: &Url, others: &[(&'static str, String)]) -> Result<Response, Failure> {
        let headers = headers(&self.settings, url, others, self.clear, SystemTime::now());
        let sent = self.client().map_err(Failure::Lasting)?.get(url.clone()).headers(headers).send().await;
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
