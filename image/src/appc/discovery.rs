//! From a name to the places where its image may be: `https://NAME?ac-discovery=1` and upwards.

use url::Url;

use super::Name;
use super::credentials::Clear;
use super::page::{PAGE_MAX, Page, variables};
use super::web::{Answer, Web};
use crate::{Error, Kind, Progress};

/// Asks for `name` and each of what it lies in, until a page says what `enough` looks for.
///
/// # Errors
/// [`Kind::NotFound`] with what each place said.
pub(super) async fn discover(
    web: &Web,
    name: &Name,
    progress: &dyn Progress,
    enough: impl Fn(&Page) -> bool,
) -> Result<Page, Error> {
    let variables = variables(name);
    let mut said = Vec::new();
    let mut prefix = name.name();
    loop {
        let mut answered = false;
        for scheme in schemes(web.clear) {
            let Ok(url) = Url::parse(&format!("{scheme}://{prefix}?ac-discovery=1")) else {
                let text = format!("discover image {name}: `{prefix}` is no address");
                return Err(Error::new(Kind::NotFound, text));
            };
            let answer = web.document(&url, PAGE_MAX, progress).await;
            answered |= answer.is_ok();
            match answer {
                Ok(Answer::Document(html)) => {
                    let page = Page::read(&html, name.name(), &variables);
                    if enough(&page) {
                        return Ok(page);
                    }
                    said.push(format!("{scheme}://{prefix} says nothing of it"));
                    // Plain HTTP is for those who have nothing else.
                    break;
                }
                Ok(_) => said.push(format!("{scheme}://{prefix} has no page")),
                Err(error) => said.push(hull_errors::chain(&error)),
            }
        }
        match prefix.rsplit_once('/') {
            // What lies above is on the same host, which does not answer at all.
            Some((above, _)) if answered => prefix = above,
            _ => break,
        }
    }
    let text = format!("discover image {name}: nothing leads to it ({})", said.join("; "));
    Err(Error::new(Kind::NotFound, text))
}

fn schemes(clear: Clear) -> &'static [&'static str] {
    match clear {
        Clear::Allowed => &["https", "http"],
        Clear::Refused => &["https"],
    }
}
