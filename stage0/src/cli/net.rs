//! What networks a pod is in, and which of its ports are the host's.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use hull_network::Destination;
use hull_pod::manifest::ExposedPort;

/// The networks.
#[derive(Debug, Default, Args)]
pub(crate) struct NetArgs {
    /// Networks of the pod: default, default-restricted, all, none, host (not in a VM), or configured ones; arguments
    /// follow a name, as in default:IP=172.16.28.9
    #[arg(
        long, value_name = "NAME[:KEY=VALUE;...],...", num_args = 0..=1, require_equals = true,
        default_missing_value = "default", value_delimiter = ','
    )]
    pub(crate) net: Vec<NetWish>,
    /// Whom the pod may speak to: open, none, or a list of public (the world without anybody's private networks) and
    /// addresses or networks with ports, as in 192.0.2.0/24:443/tcp
    #[arg(long, value_name = "open|none|DESTINATION,...", value_delimiter = ',')]
    pub(crate) egress: Vec<EgressWish>,
}

/// A word of `--egress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EgressWish {
    Open,
    None,
    To(Destination),
}

impl FromStr for EgressWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "none" => Ok(Self::None),
            _ => text.parse().map(Self::To),
        }
    }
}

/// A network by its name, and what was said for this pod in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetWish {
    pub(crate) name: String,
    pub(crate) args: Vec<(String, String)>,
}

impl FromStr for NetWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, args) = text.split_once(':').map_or((text, None), |(name, args)| (name, Some(args)));
        if name.is_empty() {
            return Err("a network has a name".into());
        }
        let pair = |pair: &str| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("{pair:?} is not KEY=VALUE")),
        };
        let args = args.map_or(Ok(vec![]), |args| args.split(';').map(pair).collect::<Result<_, _>>())?;
        Ok(Self { name: name.to_owned(), args })
    }
}

/// `NAME:[HOSTIP:]HOSTPORT`; an IPv6 address is in brackets.
pub(super) fn exposed_port(text: &str) -> Result<ExposedPort, String> {
    let wrong = || "must be NAME:[HOSTIP:]HOSTPORT".to_owned();
    let (front, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host_port = port.parse().ok().filter(|port| *port != 0);
    let host_port = host_port.ok_or_else(|| format!("{port:?} is no port: those are 1 to 65535"))?;
    let (name, ip) = front.split_once(':').map_or((front, None), |(name, ip)| (name, Some(ip)));
    if name.is_empty() {
        return Err(wrong());
    }
    let address = |ip: &str| -> Result<IpAddr, String> {
        let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
        bare.parse().map_err(|_| format!("{ip:?} is no IP address"))
    };
    Ok(ExposedPort { name: name.into(), host_port, host_ip: ip.map(address).transpose()?, pod_port: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_a_name_and_perhaps_an_address() {
        let check = |text: &str, name: &str, ip: Option<&str>, port| {
            let read = exposed_port(text).unwrap();
            let ip = ip.map(|ip| ip.parse().unwrap());
            assert_eq!((read.name.as_str(), read.host_ip, read.host_port), (name, ip, port), "{text}");
        };
        check("http:8080", "http", None, 8080);
        check("http:127.0.0.1:80", "http", Some("127.0.0.1"), 80);
        check("http:[::1]:80", "http", Some("::1"), 80);
        check("80-tcp:[::]:80", "80-tcp", Some("::"), 80);
        for wrong in ["", "http", "http:", ":80", "http:0", "http:65536", "http:nowhere:80", "http:-1"] {
            assert!(exposed_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_have_a_name_and_perhaps_arguments() {
        let check = |text: &str, name: &str, args: &[(&str, &str)]| {
            let args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(text.parse(), Ok(NetWish { name: name.into(), args }), "{text}");
        };
        check("default", "default", &[]);
        check("mine:IP=1.2.3.4;MAC=a=b", "mine", &[("IP", "1.2.3.4"), ("MAC", "a=b")]);
        for wrong in ["", ":IP=1", "x:", "x:IP", "x:=1"] {
            assert!(wrong.parse::<NetWish>().is_err(), "{wrong}");
        }
    }
}
