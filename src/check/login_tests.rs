//! What is said of logins that only clients need, and of rights that only readers of replicas do.

use super::facts::{Login, NodeTold};
use super::finding::{Code, Level};
use super::tests::{dead, first, said, said_of, told};
use crate::sentinel::client::ClientError;
use crate::topology::observation::RoleReport;

#[test]
fn a_login_for_clients_is_one_that_is_taken_whatever_it_may_do() {
    let said = |role, refused_login, told: fn(NodeTold) -> Result<NodeTold, ClientError>| {
        let findings = said_of(|n| {
            n.login = Some(Login {
                user: Some("application".to_owned()),
                told: told(NodeTold {
                    role,
                    refused_login,
                }),
            });
        });
        let of_login = [Code::ClientLoginFailed, Code::ClientLoginOk];
        let finding = { findings.into_iter() }.find(|finding| of_login.contains(&finding.code));
        finding.expect("something of the login")
    };
    let noperm = || RoleReport::Refused("NOPERM no permissions to run 'role'".to_owned());
    let refused = || Some("WRONGPASS invalid username-password pair".to_owned());
    for (role, refused_login, level) in [
        (RoleReport::Master, None, Level::Ok),
        (noperm(), None, Level::Ok),
        (RoleReport::Master, refused(), Level::Fail),
        (
            RoleReport::LoginFailed("WRONGPASS".to_owned()),
            refused(),
            Level::Fail,
        ),
    ] {
        let finding = said(role, refused_login, Ok);
        assert_eq!(finding.level, level, "{finding:?}");
        assert!(finding.message.contains("\"application\""), "{finding:?}");
        assert_eq!(finding.hint.is_some(), level == Level::Fail);
    }
    let finding = said(RoleReport::Master, None, |_| Err(dead()));
    assert_eq!(finding.level, Level::Warn);
}

#[test]
fn whoever_leads_to_replicas_has_to_be_told_of_them() {
    let findings = said(|all| told(&mut all[1]).refused.push("+sentinel|replicas"));
    assert_eq!(first(&findings), (Level::Fail, Code::SentinelRightMissing));
    let hint = findings[0].hint.as_deref().expect("what to do");
    assert!(
        hint.contains("ACL SETUSER watcher '+sentinel|replicas'"),
        "{hint}"
    );
    assert!(findings[0].message.contains("role = \"replica\""));
}
