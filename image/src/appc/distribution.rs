//! `cimd:` URIs, with which rkt names where an image comes from, whatever its kind.

use percent_encoding::percent_decode_str;
use url::{Url, form_urlencoded};

use super::name::{Labels, Name};
use crate::error::shown;
use crate::{Error, Kind};

/// What a `cimd:` URI stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// `cimd:appc:v=0:NAME?version=…&label=…`
    Name(Name),
    /// `cimd:aci-archive:v=0:ESCAPED-URL`
    Archive(Url),
    /// `cimd:docker:v=0:REFERENCE`: what would stand behind `docker://`.
    Docker(String),
}

impl Distribution {
    /// Reads a `cimd:` URI; `None` for text that is none.
    pub fn parse(text: &str) -> Option<Result<Self, Error>> {
        let rest = text.strip_prefix("cimd:")?;
        let refused = |why: String| {
            let text = format!("read image reference `{}`: {why}", shown(text.as_bytes()));
            Error::new(Kind::NotFound, text)
        };
        Some(Self::parse_rest(rest, &refused))
    }

    fn parse_rest(rest: &str, refused: &dyn Fn(String) -> Error) -> Result<Self, Error> {
        let mut parts = rest.splitn(3, ':');
        let (Some(kind), Some(version), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused("write `cimd:TYPE:v=0:DATA`".into()));
        };
        if version != "v=0" {
            let text = format!("version `{}` of `cimd` is unknown, write `v=0`", shown(version.as_bytes()));
            return Err(refused(text));
        }
        match kind {
            "appc" => name(data, refused).map(Self::Name),
            "aci-archive" => archive(data, refused).map(Self::Archive),
            "docker" => {
                let data = decoded(data).ok_or_else(|| refused("it is no UTF-8".into()))?;
                if data.is_empty() || data.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    return Err(refused("it names no image of a registry".into()));
                }
                Ok(Self::Docker(data))
            }
            other => {
                let text = format!(
                    "type `{}` is unknown, write `appc`, `aci-archive` or `docker`",
                    shown(other.as_bytes())
                );
                Err(refused(text))
            }
        }
    }
}

fn name(data: &str, refused: &dyn Fn(String) -> Error) -> Result<Name, Error> {
    let (name, query) = data.split_once('?').unwrap_or((data, ""));
    let name = decoded(name).ok_or_else(|| refused("the name is no UTF-8".into()))?;
    let labels = form_urlencoded::parse(query.as_bytes()).into_owned();
    Name::new(name.parse().map_err(refused)?, Labels::new(labels).map_err(refused)?)
}

fn archive(data: &str, refused: &dyn Fn(String) -> Error) -> Result<Url, Error> {
    let url = decoded(data).ok_or_else(|| refused("the URL is no UTF-8".into()))?;
    Url::parse(&url).map_err(|e| refused(format!("`{}` is no URL: {e}", shown(url.as_bytes()))))
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[track_caller]
    fn check(text: &str, want: &Distribution) {
        assert_eq!(&Distribution::parse(text).unwrap().unwrap(), want);
    }

    #[track_caller]
    fn refuse(text: &str, want: &str) {
        let error = Distribution::parse(text).unwrap().unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }

    #[test]
    fn each_type_is_read() {
        let name = |text| Distribution::Name(Name::parse(text).unwrap());
        check("cimd:appc:v=0:coreos.com/etcd", &name("coreos.com/etcd"));
        check(
            "cimd:appc:v=0:coreos.com%2Fetcd?version=v3.0.3&channel=a%2Bb",
            &name("coreos.com/etcd:v3.0.3,channel=a+b"),
        );
        check(
            "cimd:aci-archive:v=0:https%3A%2F%2Fexample.com%2Fapp.aci",
            &Distribution::Archive(Url::parse("https://example.com/app.aci").unwrap()),
        );
        check(
            "cimd:aci-archive:v=0:file%3A%2F%2F%2Fabsolute%2Fapp.aci",
            &Distribution::Archive(Url::parse("file:///absolute/app.aci").unwrap()),
        );
        check("cimd:docker:v=0:busybox:1.36", &Distribution::Docker("busybox:1.36".into()));
        assert!(Distribution::parse("coreos.com/etcd").is_none());
    }

    #[test]
    fn what_is_wrong_is_said() {
        refuse("cimd:", "write `cimd:TYPE:v=0:DATA`");
        refuse("cimd:appc", "write `cimd:TYPE:v=0:DATA`");
        refuse("cimd:appc:v=1:a", "version `v=1`");
        refuse("cimd:oci:v=0:a", "type `oci` is unknown");
        refuse("cimd:appc:v=0:A", "only lower case");
        refuse("cimd:appc:v=0:a?x=1&x=2", "duplicate");
        refuse("cimd:appc:v=0:a?os=freebsd", "bad os \"freebsd\"");
        refuse("cimd:aci-archive:v=0:app.aci", "is no URL");
        refuse("cimd:aci-archive:v=0:%ff", "no UTF-8");
        refuse("cimd:docker:v=0:", "names no image");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = Distribution::parse(&format!("cimd:{text}"));
            for kind in ["appc", "aci-archive", "docker"] {
                let _ = Distribution::parse(&format!("cimd:{kind}:v=0:{text}"));
            }
        }
    }
}
