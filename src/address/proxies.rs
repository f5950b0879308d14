//! Trusted proxies: the networks, and Unix sockets, whose word on who is behind them is believed.
//!
//! A proxy is known by the address that its own connection comes from. Whoever is not named is a client, and what it
//! says of addresses is not looked at. What proxies say and how it is read is `ws::proxy` and `ws::forwarded`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::RemoteAddress;

/// The word that stands for every Unix socket: who may open it has been decided by the rights of its path.
const UNIX: &str = "unix";

/// Which proxies are believed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

impl TrustedProxies {
    /// From words as they are configured: `10.0.0.0/8`, a bare address, `unix`.
    ///
    /// # Errors
    /// What was wanted instead.
    pub fn read<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<TrustedProxies, String> {
        let mut trusted = TrustedProxies::default();
        for word in words {
            if word.eq_ignore_ascii_case(UNIX) {
                trusted.unix = true;
                continue;
            }
            let network = match word.parse::<IpAddr>() {
                Ok(ip) => Ok(IpNet::from(ip.to_canonical())),
                Err(_) => word.parse::<IpNet>(),
            };
            let network = network.map_err(|_| {
                format!(
                    "wants an address, a network such as 10.0.0.0/8 or fd00::/8, or {UNIX}; not {word:?}"
                )
            })?;
            // The bits behind the prefix mean nothing, and would be shown.
            let network = network.trunc();
            if !trusted.networks.contains(&network) {
                trusted.networks.push(network);
            }
        }
        Ok(trusted)
    }

    /// The words, as [`TrustedProxies::read`] takes them.
    pub fn words(&self) -> Vec<String> {
        let written = |network: &IpNet| {
            if network.prefix_len() == network.max_prefix_len() {
                network.addr().to_string()
            } else {
                network.to_string()
            }
        };
        let mut words: Vec<String> = self.networks.iter().map(written).collect();
        words.extend(self.unix.then(|| UNIX.to_owned()));
        words
    }

    /// Is nobody believed?
    pub fn is_empty(&self) -> bool {
        !self.unix && self.networks.is_empty()
    }

    /// Does who is believed depend on an IP address?
    pub fn has_networks(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Is a proxy at this address believed?
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Is a peer believed? Not one whose address is not known.
    pub fn trusts(&self, peer: &RemoteAddress) -> bool {
        // What most brokers have: nobody to ask about.
        !self.is_empty()
            && match peer.ip() {
                Some(ip) => self.contains(ip),
                None => self.unix && peer.is_unix(),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<TrustedProxies, String> {
        TrustedProxies::read(words.iter().copied())
    }

    #[test]
    fn words_are_read_and_written() {
        let check = |words: &[&str], expected: Option<&[&str]>| {
            let written = read(words).ok().map(|trusted| trusted.words());
            let expected = expected.map(|words| words.iter().map(ToString::to_string).collect());
            assert_eq!(written, expected, "{words:?}");
        };
        check(&[], Some(&[]));
        check(&["10.0.0.0/8"], Some(&["10.0.0.0/8"]));
        check(&["10.1.2.3/8", "10.0.0.0/8"], Some(&["10.0.0.0/8"]));
        check(&["127.0.0.1", "::1"], Some(&["127.0.0.1", "::1"]));
        check(&["127.0.0.1/32"], Some(&["127.0.0.1"]));
        check(&["0:0::1/128", "FD00::/8"], Some(&["::1", "fd00::/8"]));
        check(&["::ffff:10.0.0.1"], Some(&["10.0.0.1"]));
        check(&["0.0.0.0/0"], Some(&["0.0.0.0/0"]));
        check(&["Unix", "10.0.0.1"], Some(&["10.0.0.1", "unix"]));
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0",
            "10.0.0.1:80",
            "[::1]",
            "localhost",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "unix:/run/x",
            "*",
        ] {
            check(&["10.0.0.1", wrong], None);
        }
    }

    #[test]
    fn who_is_believed() {
        let check = |words: &[&str], peer: &str, expected: bool| {
            let peer = match peer {
                "" => RemoteAddress::default(),
                "unix" => RemoteAddress::unix(),
                address => RemoteAddress::at(address.parse().expect("an address")),
            };
            let trusted = read(words).expect("networks");
            assert_eq!(trusted.trusts(&peer), expected, "{words:?} {peer}");
        };
        for peer in ["", "unix", "127.0.0.1:1", "[::1]:1"] {
            check(&[], peer, false);
        }
        check(&["10.0.0.0/8"], "10.255.0.1:9", true);
        check(&["10.0.0.0/8"], "11.0.0.1:9", false);
        check(&["10.0.0.0/8"], "[::ffff:10.0.0.1]:9", true);
        check(&["10.0.0.0/8"], "[::a00:1]:9", false);
        check(&["10.0.0.0/8"], "unix", false);
        check(&["10.0.0.0/8", "unix"], "unix", true);
        check(&["10.0.0.0/8", "unix"], "", false);
        check(&["unix"], "127.0.0.1:1", false);
        check(&["127.0.0.1"], "127.0.0.2:1", false);
        check(&["::1"], "[::1]:1", true);
        check(&["fd00::/8"], "[fd12::1]:1", true);
        check(&["fd00::/8"], "[fe80::1]:1", false);
        check(&["0.0.0.0/0"], "192.0.2.1:1", true);
        check(&["0.0.0.0/0"], "[2001:db8::1]:1", false);
    }
}
