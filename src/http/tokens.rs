//! Tokens: what a token file says, and whose a token is.
//!
//! A token reads `adt_NAME_SECRET`. The file has the SHA-256 of the whole, never the token: 256 random bits need no slow hash.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::jobs::{Access, hex};

/// What every token starts with, so that scanners find those that have leaked.
const PREFIX: &str = "adt_";

/// Random bytes of a token.
pub const SECRET_BYTES: usize = 32;

/// The longest name of a token and of a tenant.
const MAX_LABEL_BYTES: usize = 64;

/// The most tokens of a file.
const MAX_TOKENS: usize = 100_000;

/// What a line of a token file looks like.
const LINE_FORM: &str = "NAME:TENANT:SHA256[:admin][:expires=DATE]";

/// A line of a token file that cannot be understood. Nothing of the line is repeated: it may hold a token by mistake.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {expected}")]
pub struct InvalidTokenLine {
    /// Its number; the first line is 1.
    pub line: usize,
    /// What is wrong with it, and what was expected.
    pub expected: String,
}

/// What a token file says about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: Arc<str>,
    tenant: Arc<str>,
    sha256: [u8; 32],
    is_admin: bool,
    /// From then on it is refused.
    expires_at: Option<Timestamp>,
}

/// All that a token file says.
#[derive(Debug, Default)]
pub struct TokenTable {
    entries: HashMap<Arc<str>, Entry>,
}

impl TokenTable {
    /// Reads a token file.
    ///
    /// # Errors
    /// When one of its lines cannot be understood.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidTokenLine> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut entries = HashMap::new();
        for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let invalid = |expected: String| InvalidTokenLine { line, expected };
            let text = std::str::from_utf8(text).map_err(|_| invalid("expected UTF-8".into()))?.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let entry = Entry::parse(text).map_err(invalid)?;
            if entries.len() == MAX_TOKENS {
                return Err(invalid(format!("there are more than {MAX_TOKENS} tokens")));
            }
            if entries.insert(Arc::clone(&entry.name), entry).is_some() {
                return Err(invalid("an earlier line has a token of the same name".into()));
            }
        }
        Ok(Self { entries })
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no token: then nobody gets in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, String> {
        let mut fields = text.splitn(4, ':');
        let (Some(name), Some(tenant), Some(sha256)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(format!("expected {LINE_FORM}"));
        };
        check_token_name(name)?;
        check_tenant(tenant)?;
        let sha256 = parse_sha256(sha256).ok_or("SHA256: expected the 64 hexadecimal digits of the token's SHA-256")?;
        let (is_admin, expires) = match fields.next() {
            None => (false, None),
            Some("admin") => (true, None),
            Some(rest) => match rest.strip_prefix("admin:") {
                Some(expires) => (true, Some(expires)),
                None => (false, Some(rest)),
            },
        };
        let expires_at = match expires {
            None => None,
            // The rest of the line: a time has colons itself.
            Some(expires) => match expires.strip_prefix("expires=") {
                Some(date) => Some(parse_expiry(date)?),
                None => return Err(format!("expected {LINE_FORM}: admin or expires=DATE behind the SHA-256")),
            },
        };
        Ok(Self { name: name.into(), tenant: tenant.into(), sha256, is_admin, expires_at })
    }

    fn has_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= Timestamp::now())
    }

    /// True when both stand for the same rights of the same token, whenever they end.
    fn is_same_right(&self, other: &Self) -> bool {
        let Self { name, tenant, sha256, is_admin, expires_at: _ } = self;
        *name == other.name && *tenant == other.tenant && *sha256 == other.sha256 && *is_admin == other.is_admin
    }
}

/// Checks the name of a token.
///
/// # Errors
/// What was expected.
pub fn check_token_name(name: &str) -> Result<(), String> {
    if is_label(name) && !name.is_empty() {
        return Ok(());
    }
    Err(format!("the name of a token has 1 to {MAX_LABEL_BYTES} of the characters A-Z a-z 0-9 . _ -"))
}

/// Checks the name of a tenant. It may be empty: that tenant has the jobs of a service without tokens.
///
/// # Errors
/// What was expected.
pub fn check_tenant(tenant: &str) -> Result<(), String> {
    if is_label(tenant) {
        return Ok(());
    }
    Err(format!("the name of a tenant has at most {MAX_LABEL_BYTES} of the characters A-Z a-z 0-9 . _ -"))
}

fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL_BYTES && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let is_hexadecimal = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)).filter(|_| is_hexadecimal) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    is_hexadecimal.then_some(digest)
}

/// Reads when a token ends: the beginning of a day in UTC, or a time.
///
/// # Errors
/// What was expected.
pub fn parse_expiry(text: &str) -> Result<Timestamp, String> {
    let is_date = text.len() == "2027-01-31".len();
    let time = if is_date { format!("{text}T00:00:00Z").parse() } else { text.parse() };
    time.map_err(|_: jiff::Error| {
        "expires: expected a date, from whose beginning in UTC on the token is refused, such as 2027-01-31, or a time such as \
         2027-01-31T12:00:00Z"
            .into()
    })
}

/// A token that has just been made.
pub struct NewToken {
    /// The token, for its holder alone.
    pub token: String,
    /// The line for the token file.
    pub line: String,
}

impl NewToken {
    /// Makes a token of random bytes, with rights whose names have been checked.
    #[must_use]
    pub fn new(name: &str, tenant: &str, is_admin: bool, expires: Option<&str>, secret: [u8; SECRET_BYTES]) -> Self {
        let token = format!("{PREFIX}{name}_{}", hex(secret));
        let mut line = format!("{name}:{tenant}:{}", hex(Sha256::digest(&token).into()));
        if is_admin {
            line.push_str(":admin");
        }
        if let Some(expires) = expires {
            // Writing to a string does not fail.
            let _ = write!(line, ":expires={expires}");
        }
        Self { token, line }
    }
}

/// Why a token gives no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenRefused {
    /// It is not one of those in the file.
    Unknown,
    /// It is, and its time is over.
    Expired,
}

/// The tokens that are valid now. The table behind it is replaced as a whole.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<RwLock<Issued>>);

#[derive(Debug, Default)]
struct Issued {
    table: TokenTable,
    /// For tokens that were used since they came into the table: cancelled when they go.
    holders: HashMap<Arc<str>, CancellationToken>,
}

impl Tokens {
    /// Tokens of this table.
    #[must_use]
    pub fn new(table: TokenTable) -> Self {
        Self(Arc::new(RwLock::new(Issued { table, holders: HashMap::new() })))
    }

    /// Replaces the table. What runs with a token that is no longer in it, has other rights or has expired ends.
    pub fn replace(&self, table: TokenTable) {
        let mut issued = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut issued.table, table);
        let Issued { table, holders } = &mut *issued;
        holders.retain(|name, holder| {
            let is_kept = match (old.entries.get(name), table.entries.get(name)) {
                (Some(old), Some(new)) => old.is_same_right(new) && !new.has_expired(),
                _ => false,
            };
            if !is_kept {
                holder.cancel();
            }
            is_kept
        });
    }

    /// Ends what runs with tokens that have expired.
    pub fn end_expired(&self) {
        let mut issued = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Issued { table, holders } = &mut *issued;
        holders.retain(|name, holder| {
            let has_expired = table.entries.get(name).is_none_or(Entry::has_expired);
            if has_expired {
                holder.cancel();
            }
            !has_expired
        });
    }

    /// The holder of a token. Takes the same time whether there is a token of that name or not.
    pub(super) fn authenticate(&self, token: &str) -> Result<Holder, TokenRefused> {
        let sha256: [u8; 32] = Sha256::digest(token).into();
        let name = token.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('_')).map_or("", |(name, _)| name);
        let (entry, revoked) = {
            let issued = self.0.read().unwrap_or_else(PoisonError::into_inner);
            (issued.table.entries.get(name).cloned(), issued.holders.get(name).cloned())
        };
        let expected = entry.as_ref().map_or([0; 32], |entry| entry.sha256);
        let is_right = bool::from(sha256.ct_eq(&expected));
        let Some(entry) = entry.filter(|_| is_right) else {
            return Err(TokenRefused::Unknown);
        };
        if entry.has_expired() {
            return Err(TokenRefused::Expired);
        }
        let revoked = match revoked {
            Some(revoked) => revoked,
            None => self.register(&entry).ok_or(TokenRefused::Unknown)?,
        };
        Ok(Holder { entry, revoked, tokens: self.clone() })
    }

    /// What is cancelled when this token goes; none when it has just gone.
    fn register(&self, entry: &Entry) -> Option<CancellationToken> {
        let mut issued = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Issued { table, holders } = &mut *issued;
        let is_there = table.entries.get(&entry.name).is_some_and(|known| known.is_same_right(entry));
        is_there.then(|| holders.entry(Arc::clone(&entry.name)).or_default().clone())
    }
}

/// The holder of a token that was valid when it was shown.
#[derive(Clone)]
pub(super) struct Holder {
    entry: Entry,
    revoked: CancellationToken,
    tokens: Tokens,
}

impl Holder {
    pub(super) fn name(&self) -> &Arc<str> {
        &self.entry.name
    }

    pub(super) fn tenant(&self) -> &Arc<str> {
        &self.entry.tenant
    }

    pub(super) fn access(&self) -> Access {
        let tenant = Arc::clone(&self.entry.tenant);
        if self.entry.is_admin { Access::administrator(tenant) } else { Access::tenant(tenant) }
    }

    /// True while the token is as it was: in the table, with the same rights, and not expired.
    pub(super) fn is_valid(&self) -> bool {
        let issued = self.tokens.0.read().unwrap_or_else(PoisonError::into_inner);
        let entry = issued.table.entries.get(&self.entry.name);
        entry.is_some_and(|entry| entry.is_same_right(&self.entry) && !entry.has_expired())
    }

    /// Cancelled when the token is no longer in the table, has other rights, or has expired.
    pub(super) fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder")
            .field("name", &self.entry.name)
            .field("tenant", &self.entry.tenant)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, expires: Option<&str>) -> NewToken {
        NewToken::new(name, "acme", false, expires, [7; SECRET_BYTES])
    }

    fn tokens(lines: &[&str]) -> TokenTable {
        TokenTable::parse(lines.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn lines_are_read_as_they_are_documented() {
        let digest = "ab".repeat(32);
        for (rest, is_admin, expires_at) in [
            ("", false, None),
            (":admin", true, None),
            (":expires=2027-01-31", false, Some("2027-01-31T00:00:00Z")),
            (":admin:expires=2027-01-31", true, Some("2027-01-31T00:00:00Z")),
            (":expires=2027-01-31T12:30:00Z", false, Some("2027-01-31T12:30:00Z")),
        ] {
            let entry = Entry::parse(&format!("ci_1.x-y:acme:{digest}{rest}")).unwrap();
            assert_eq!((&*entry.name, &*entry.tenant, entry.is_admin), ("ci_1.x-y", "acme", is_admin), "{rest}");
            assert_eq!(
                (entry.sha256, entry.expires_at),
                ([0xab; 32], expires_at.map(|at| at.parse().unwrap())),
                "{rest}"
            );
        }
        let table = tokens(&["\u{feff}# tokens\r", "", "  ", &format!(" a::{digest}\r"), &format!("b:acme:{digest}")]);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn lines_that_cannot_be_understood_are_named_without_being_repeated() {
        let digest = "ab".repeat(32);
        for line in [
            "a".to_owned(),
            "a:b".to_owned(),
            made("a", None).token,
            format!(":acme:{digest}"),
            format!("a b:acme:{digest}"),
            format!("{}:acme:{digest}", "n".repeat(65)),
            format!("a:{}:{digest}", "t".repeat(65)),
            format!("a:ac/me:{digest}"),
            format!("a:acme:{}", &digest[1..]),
            format!("a:acme:{}", "xy".repeat(32)),
            format!("a:acme:{digest}:"),
            format!("a:acme:{digest}:Admin"),
            format!("a:acme:{digest}:expires=soon"),
            format!("a:acme:{digest}:expires="),
            format!("a:acme:{digest}:expires=2027-01-31:admin"),
            format!("good:acme:{digest}"),
        ] {
            let text = format!("# first\ngood:acme:{digest}\n{line}\n");
            let error = TokenTable::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.line, 3, "{line}");
            assert!(!error.to_string().contains(&digest[..20]) && !error.to_string().contains("0707"), "{error}");
        }
        assert_eq!(TokenTable::parse(b"\n\xff\n").unwrap_err().line, 2);
    }

    #[test]
    fn only_the_whole_token_is_right() {
        let NewToken { token, line } = made("ci_1", None);
        let tokens = Tokens::new(tokens(&[&line]));
        assert!(tokens.authenticate(&token).is_ok_and(|holder| &**holder.name() == "ci_1" && holder.is_valid()));
        let upper = token.to_uppercase();
        for other in ["", "adt_", "adt_ci_1_", "ci_1", &token[1..], &token[..token.len() - 1], &upper, &line] {
            assert_eq!(tokens.authenticate(other).unwrap_err(), TokenRefused::Unknown, "{other}");
        }
        // The digest of a name that is not there is that of no token.
        assert_eq!(tokens.authenticate("adt_other_00").unwrap_err(), TokenRefused::Unknown);
    }

    #[test]
    fn holders_are_told_when_their_token_goes_and_only_then() {
        let [kept, gone] = [made("kept", None), made("gone", None)];
        let all = Tokens::new(tokens(&[&kept.line, &gone.line]));
        let [holder, other] = [&kept, &gone].map(|made| all.authenticate(&made.token).unwrap());
        let longer = made("kept", Some("9999-01-01"));
        all.replace(tokens(&[&longer.line]));
        assert!(holder.is_valid() && !holder.revoked().is_cancelled());
        assert!(!other.is_valid() && other.revoked().is_cancelled());
        let past = made("kept", Some("2001-01-01"));
        all.replace(tokens(&[&past.line]));
        assert!(!holder.is_valid() && holder.revoked().is_cancelled());
        assert_eq!(all.authenticate(&kept.token).unwrap_err(), TokenRefused::Expired);
        assert_eq!(all.authenticate("adt_kept_00").unwrap_err(), TokenRefused::Unknown);
        let administrator = NewToken::new("kept", "acme", true, None, [7; SECRET_BYTES]);
        all.replace(tokens(&[&kept.line]));
        let holder = all.authenticate(&kept.token).unwrap();
        all.replace(tokens(&[&administrator.line]));
        assert!(holder.revoked().is_cancelled(), "other rights are another token's");
    }
}
