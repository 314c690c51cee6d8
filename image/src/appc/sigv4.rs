//! Amazon's signatures, version 4, for reading objects of S3.
//!
//! "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk", Amazon S3 API
//! Reference; the numbers of the steps below are that page's.

use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::settings::AwsKeys;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";

/// Where buckets are that name no region.
const DEFAULT_REGION: &str = "us-east-1";

/// What stays as it is in canonical queries; in paths slashes stay too.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ENCODED_IN_PATHS: &AsciiSet = &ENCODED.remove(b'/');

/// The headers that make `GET url` a signed request; `others` are headers that are sent besides and signed too,
/// their names in lower case.
pub(super) fn sign(
    keys: &AwsKeys,
    url: &Url,
    others: &[(&str, &str)],
    now: SystemTime,
) -> Vec<(&'static str, String)> {
    let (time, payload) = (basic_time(now), hex(&Sha256::digest(b"")));
    let region = keys.region.as_deref().or_else(|| region_of(url.host_str()?)).unwrap_or(DEFAULT_REGION);
    let scope = format!("{}/{region}/{SERVICE}/aws4_request", &time[..8]);
    let host = super::credentials::host_header(url);
    let mut headers =
        vec![("host", host.as_str()), ("x-amz-content-sha256", &payload), ("x-amz-date", &time)];
    headers.extend_from_slice(others);
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    // Task 1.
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let path = percent_decode_str(url.path()).collect::<Vec<u8>>();
    let path = percent_encoding::percent_encode(&path, ENCODED_IN_PATHS);
    let request = format!("GET\n{path}\n{}\n{lines}\n{names}\n{payload}", canonical_query(url));
    // Task 2.
    let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex(&Sha256::digest(request)));
    // Task 3.
    let first = format!("AWS4{}", keys.secret_access_key.reveal()).into_bytes();
    let key = [&time[..8], region, SERVICE, "aws4_request"].iter().fold(first, |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &text));
    let credential = format!("{}/{scope}", keys.access_key_id);
    let authorization =
        format!("{ALGORITHM} Credential={credential},SignedHeaders={names},Signature={signature}");
    vec![("authorization", authorization), ("x-amz-content-sha256", payload), ("x-amz-date", time)]
}

fn canonical_query(url: &Url) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let mut pairs: Vec<_> =
        url.query_pairs().map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// `s3-REGION.amazonaws.com`, `s3.REGION.amazonaws.com`, with or without a bucket in front.
fn region_of(host: &str) -> Option<&str> {
    let mut labels = host.strip_suffix(".amazonaws.com")?.rsplit('.');
    let last = labels.next()?;
    match last.strip_prefix("s3-") {
        Some(region) => Some(region),
        None => (labels.next()? == "s3").then_some(last),
    }
}

/// ISO 8601 in its basic form: `20130524T000000Z`.
fn basic_time(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// The examples of the page, of Friday, May 24, 2013, 00:00:00.
    #[track_caller]
    fn check(url: &str, others: &[(&str, &str)], signature: &str) {
        let keys = AwsKeys {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            region: None,
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        let headers = sign(&keys, &Url::parse(url).unwrap(), others, now);
        let (name, authorization) = &headers[0];
        assert_eq!(*name, "authorization");
        assert!(authorization.ends_with(&format!("Signature={signature}")), "{authorization}");
        assert!(authorization.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;"
        ));
        assert_eq!(headers[2], ("x-amz-date", "20130524T000000Z".to_owned()));
    }

    #[test]
    fn signatures_are_amazons() {
        check(
            "https://examplebucket.s3.amazonaws.com/test.txt",
            &[("range", "bytes=0-9")],
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        );
        check(
            "https://examplebucket.s3.amazonaws.com/?lifecycle",
            &[],
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        );
        check(
            "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
            &[],
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        );
    }

    #[test]
    fn a_region_is_read_from_the_host() {
        for (host, want) in [
            ("s3.amazonaws.com", None),
            ("bucket.s3.amazonaws.com", None),
            ("s3-eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("bucket.s3-eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("bucket.s3.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("example.com", None),
        ] {
            assert_eq!(region_of(host), want, "{host}");
        }
    }
}
