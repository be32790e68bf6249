//! What a registry or its token server is given: a password or a token.

use oci_client::secrets::RegistryAuth;

use super::secret::Secret;

/// A credential of this client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Credential {
    /// A user name and a password.
    Basic(Secret, Secret),
    /// A token that the token server turns into others ("identity token").
    Refresh(Secret),
    /// A token for the registry itself.
    Token(Secret),
}

impl Credential {
    pub(crate) fn from_auth(auth: RegistryAuth) -> Option<Self> {
        match auth {
            RegistryAuth::Anonymous => None,
            RegistryAuth::Basic(user, password) => {
                Some(Self::Basic(Secret::new(user), Secret::new(password)))
            }
            RegistryAuth::Bearer(token) => Some(Self::Token(Secret::new(token))),
        }
    }
}
