//! What is wrong with the configuration of hosts, and with what a registry asks for.

plyfold_core::fault! {
    /// What is wrong with the configuration of hosts: `hosts.toml`, or the same in a program.
    pub enum HostsFault;
    Header(String) => (Config, "the header field {0:?} cannot be sent"),
    Host(&'static str) => (Config, "a host of the configuration is not valid: {0}"),
    Long(u64) => (Limit, "hosts.toml has more than {0} bytes"),
    Proxy => (Config, "the proxy of a host is not valid", "write http://HOST:PORT"),
    Syntax(usize, String) => (Config, "hosts.toml is not valid, line {0}: {1}"),
    Unknown(String) => (Config, "unknown field {0:?} in hosts"),
}

plyfold_core::fault! {
    /// What is wrong with a challenge (RFC 9110 11.6.1), the realm that it names, or the token that came from there.
    pub enum ChallengeFault;
    Invalid(String) => (Auth, "the registry's authentication challenge is not valid: {0}"),
    Realm(String) => (Auth, "untrusted realm: {0}"),
    Token(&'static str) => (Auth, "the token server's answer is not valid: {0}"),
}
