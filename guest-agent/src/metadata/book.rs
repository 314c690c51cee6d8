//! What the service knows, and what it makes of a request. Requests come from apps: nothing in them is trusted.

use hull_agent_protocol::Metadata;
use hull_agent_protocol::message::SIGNED_MAX;

/// Longest head of a request, in bytes.
pub(super) const HEAD_MAX: usize = 8 << 10;

/// Longest request: of a form each byte may be written as three.
pub(super) const REQUEST_MAX: usize = HEAD_MAX + 6 * SIGNED_MAX;

/// Most lines of a head.
const HEADERS_MAX: usize = 64;

/// Everything there is to tell.
#[derive(Debug)]
pub(super) struct Book(Metadata);

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// And is known.
    Answered(Answer),
    Sign {
        content: Vec<u8>,
    },
    Verify {
        uuid: String,
        content: Vec<u8>,
        signature: String,
    },
}

/// An HTTP answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    /// Without a body.
    pub(super) fn status(status: &'static str) -> Self {
        Self { status, kind: TEXT, body: String::new() }
    }

    pub(super) fn text(text: &str) -> Self {
        Self { status: "200 OK", kind: TEXT, body: text.into() }
    }

    fn json(text: String) -> Self {
        Self { status: "200 OK", kind: "application/json", body: text }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { status, kind, body } = self;
        let len = body.len();
        format!(
            "HTTP/1.1 {status}\r\nMetadata-Flavor: AppContainer\r\nContent-Type: {kind}\r\n\
             Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

const TEXT: &str = "text/plain; charset=us-ascii";

impl Book {
    pub(super) fn new(metadata: &Metadata) -> Self {
        Self(metadata.clone())
    }

    /// What a request asks, once all of it is there.
    pub(super) fn question(&self, request: &[u8]) -> Option<Question> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        let refused = |status| Some(Question::Answered(Answer::status(status)));
        let body = match head.parse(request) {
            Ok(httparse::Status::Complete(len)) => &request[len..],
            Ok(httparse::Status::Partial) if request.len() < HEAD_MAX => return None,
            Ok(httparse::Status::Partial) => return refused("431 Request Header Fields Too Large"),
            Err(_) => return refused("400 Bad Request"),
        };
        let (Some(method), Some(path)) = (head.method, head.path) else { return refused("400 Bad Request") };
        let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = match length.map(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok()) {
            None => 0,
            Some(Some(length)) if length <= REQUEST_MAX - HEAD_MAX => length,
            Some(_) => return refused("413 Content Too Large"),
        };
        let body = body.get(..length)?;
        Some(self.route(method, path, body))
    }

    fn route(&self, method: &str, path: &str, body: &[u8]) -> Question {
        let answered = |status| Question::Answered(Answer::status(status));
        let path = path.split('?').next().unwrap_or_default();
        let mut parts = path.strip_prefix('/').unwrap_or(path).splitn(2, '/');
        if !same(parts.next().unwrap_or_default(), &self.0.token) {
            return answered("401 Unauthorized");
        }
        let Some(rest) = parts.next().and_then(|rest| rest.strip_prefix("acMetadata/v1/")) else {
            return answered("404 Not Found");
        };
        let words: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
        match (method, words.as_slice()) {
            ("POST", ["pod", "hmac", "sign"]) => sign(body),
            ("POST", ["pod", "hmac", "verify"]) => verify(body),
            ("GET", words) => Question::Answered(self.look_up(words)),
            _ => answered("405 Method Not Allowed"),
        }
    }

    fn look_up(&self, words: &[&str]) -> Answer {
        let pod = &self.0;
        match words {
            ["pod", "uuid"] => Answer::text(&pod.uuid),
            ["pod", "manifest"] => Answer::json(pod.manifest.clone()),
            ["pod", "annotations", name @ ..] => annotations(&pod.annotations, name),
            ["apps", app, rest @ ..] => {
                let Some(app) = pod.apps.iter().find(|known| known.name == *app) else {
                    return Answer::status("404 Not Found");
                };
                match rest {
                    ["image", "id"] => Answer::text(&app.image_id),
                    ["image", "manifest"] => Answer::json(app.image_manifest.clone()),
                    ["annotations", name @ ..] => annotations(&app.annotations, name),
                    _ => Answer::status("404 Not Found"),
                }
            }
            _ => Answer::status("404 Not Found"),
        }
    }
}

/// Takes as long whatever is wrong.
fn same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && differences == 0
}

/// All of them, or the value of one; names may have slashes.
fn annotations(all: &[(String, String)], name: &[&str]) -> Answer {
    if name.is_empty() {
        let pair = |(name, value): &(String, String)| serde_json::json!({ "name": name, "value": value });
        return Answer::json(serde_json::Value::from_iter(all.iter().map(pair)).to_string());
    }
    let name = name.join("/");
    match all.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => Answer::text(value),
        None => Answer::status("404 Not Found"),
    }
}

fn sign(body: &[u8]) -> Question {
    match field(body, "content") {
        Some(content) if content.len() <= SIGNED_MAX => Question::Sign { content },
        _ => Question::Answered(Answer::status("400 Bad Request")),
    }
}

fn verify(body: &[u8]) -> Question {
    let text = |name| field(body, name).and_then(|bytes| String::from_utf8(bytes).ok());
    match (text("uuid"), field(body, "content"), text("signature")) {
        (Some(uuid), Some(content), Some(signature))
            if content.len() <= SIGNED_MAX && signature.len() <= SIGNED_MAX =>
        {
            Question::Verify { uuid, content, signature }
        }
        _ => Question::Answered(Answer::status("400 Bad Request")),
    }
}

/// A field of a form (`application/x-www-form-urlencoded`, the URL standard).
fn field(form: &[u8], name: &str) -> Option<Vec<u8>> {
    form.split(|byte| *byte == b'&').find_map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        (decode(halves.next()?)? == name.as_bytes()).then(|| decode(halves.next().unwrap_or_default()))?
    })
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![];
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = after.first_chunk::<2>()?;
                let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
                out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = &after[2..];
            }
            byte => out.push(*byte),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use hull_agent_protocol::AppMetadata;
    use proptest::prelude::*;

    use super::*;

    fn book() -> Book {
        let app = AppMetadata {
            name: "web".into(),
            annotations: vec![("example.com/x".into(), "y".into())],
            image_id: "sha512-1".into(),
            image_manifest: "{}".into(),
        };
        let manifest = r#"{"acKind":"PodManifest"}"#.into();
        let (token, uuid) = ("t0ken".into(), "u".into());
        Book(Metadata { token, uuid, manifest, annotations: vec![], apps: vec![app] })
    }

    /// The status and the body.
    fn get(path: &str) -> (&'static str, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        match book().question(request.as_bytes()) {
            Some(Question::Answered(answer)) => (&answer.status[..3], answer.body),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn what_is_known_is_told_to_who_knows_the_token() {
        let check =
            |path: &str, status: &str, body: &str| assert_eq!(get(path), (status, body.to_owned()), "{path}");
        let v1 = "/t0ken/acMetadata/v1";
        check(&format!("{v1}/pod/uuid"), "200", "u");
        check(&format!("{v1}/pod/manifest"), "200", r#"{"acKind":"PodManifest"}"#);
        check(&format!("{v1}/pod/annotations/"), "200", "[]");
        check(&format!("{v1}/apps/web/annotations"), "200", r#"[{"name":"example.com/x","value":"y"}]"#);
        check(&format!("{v1}/apps/web/annotations/example.com/x"), "200", "y");
        check(&format!("{v1}/apps/web/image/id"), "200", "sha512-1");
        check(&format!("{v1}/apps/web/image/manifest"), "200", "{}");
        check(&format!("{v1}/apps/db/image/id"), "404", "");
        check(&format!("{v1}/pod/annotations/x"), "404", "");
        check(&format!("{v1}/pod/hmac/sign"), "404", "");
        check("/t0ken/other", "404", "");
        check("/other/acMetadata/v1/pod/uuid", "401", "");
        check("/t0ke/acMetadata/v1/pod/uuid", "401", "");
        check("/", "401", "");
    }

    fn post(path: &str, body: &str) -> Option<Question> {
        let length = body.len();
        let head = format!("POST /t0ken/acMetadata/v1/{path} HTTP/1.1\r\ncontent-length: {length}\r\n\r\n");
        book().question(format!("{head}{body}").as_bytes())
    }

    #[test]
    fn forms_are_decoded() {
        let content = b"a b&=\0".to_vec();
        let want = Question::Sign { content: content.clone() };
        assert_eq!(post("pod/hmac/sign", "x=1&content=a+b%26%3D%00"), Some(want));
        let (uuid, signature) = ("u".into(), "s+/=".into());
        let want = Question::Verify { uuid, content, signature };
        assert_eq!(post("pod/hmac/verify", "uuid=u&signature=s%2b%2F%3D&content=a%20b%26%3d%00"), Some(want));
        for wrong in ["", "x=1", "content=%", "content=%0", "content=%+1"] {
            let refused = Question::Answered(Answer::status("400 Bad Request"));
            assert_eq!(post("pod/hmac/sign", wrong), Some(refused), "{wrong}");
        }
    }

    #[test]
    fn half_a_request_is_waited_for_and_a_huge_one_is_not() {
        assert_eq!(book().question(b"GET /t0ken"), None);
        assert_eq!(book().question(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab"), None);
        let status = |request: &[u8]| match book().question(request) {
            Some(Question::Answered(answer)) => answer.status,
            other => panic!("{other:?}"),
        };
        let long = [b"GET /x HTTP/1.1\r\na: ".to_vec(), vec![b'a'; HEAD_MAX]].concat();
        assert!(status(&long).starts_with("431"));
        assert!(status(b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n").starts_with("413"));
        assert!(status(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n").starts_with("413"));
        assert!(status(b"\0\0\0\0").starts_with("400"));
    }

    proptest! {
        #[test]
        fn nothing_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = book().question(&bytes);
            let _ = post("pod/hmac/verify", &String::from_utf8_lossy(&bytes));
        }
    }
}
