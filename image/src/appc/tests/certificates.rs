//! `certs.d` for hosts of App Container Images.

use super::*;

#[test]
fn certificates_of_a_host_count_for_it() {
    let place = Place::without_converter();
    let (elsewhere, members) = (Authority::new(), Authority::new());
    let answer = |_: &Request| Reply::new(404, "");
    let host = Host::start_for(&elsewhere, Some(&members), answer);
    let other = Host::start(&elsewhere, answer);
    let fetch = |host: &Host| place.by_url(&FetchOptions::default(), &host.url("/x.aci"));
    let put = |name: &str, content: &str| {
        let folder = place.path("local/certs.d").join(host.address());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), content).unwrap();
    };
    refused(fetch(&host), Kind::Network, "its certificate is not trusted");
    put("ca.crt", &elsewhere.pem());
    // It answers, and wants to know who we are.
    refused(fetch(&host), Kind::Network, "it wants a certificate of ours");
    let (certificate, key) = members.client();
    put("client.cert", &certificate);
    refused(fetch(&host), Kind::Host, "client.key");
    put("client.key", "no key");
    refused(fetch(&host), Kind::Host, "no certificate and private key");
    put("client.key", &key);
    assert!(host.seen().is_empty());
    refused(fetch(&host), Kind::Untrusted, "no signature");
    assert_eq!(host.targets(), ["/x.aci.asc"]);
    // What is believed of one host is not believed of others.
    refused(fetch(&other), Kind::Network, "its certificate is not trusted");
    assert!(other.seen().is_empty());
}
