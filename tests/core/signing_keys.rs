//! Keys and tokens over time: fresh, stale, unusable; rotated, not available, fetched by concurrent requests.

#![expect(clippy::expect_used, reason = "an unexpected failure fails the test")]

use std::future::ready;
use std::pin::pin;

use ai_sessions::auth::Refused;
use ai_sessions::auth::bearer::BearerToken;
use ai_sessions::auth::key_cache::{COOL_DOWN_MS, FRESH_MS, STALE_MS};
use ai_sessions::config::Config;
use ai_sessions::edge::authenticate::authenticate;
use ai_sessions::ports::Clock as _;
use futures_util::future::{join_all, select};

use crate::hostile_tokens::{
    JWKS, NOW_MS, ORIGIN, authenticate_with, config, genuine, genuine_by_secret, genuine_until, host_at,
    key_set,
};
use crate::scripted_host::{Reply, ScriptedHost};

/// Publishes these keys from now on.
fn publish(host: &ScriptedHost, kids: &[&str]) {
    host.always(JWKS, Reply::new(200).say(key_set(kids)));
}

/// Authenticates a new token, and runs its background work to the end.
fn send_new_token(host: &ScriptedHost, kid: &str) -> Result<(), Refused> {
    // Another expiry makes another token.
    let token = genuine_until(kid, host_now_s(host) + 3600 + u64::try_from(host.sent().len()).expect("few"));
    let outcome = authenticate_with(host, &config(false), Some(&token)).map(|_| ());
    host.run_background();
    outcome
}

fn host_now_s(host: &ScriptedHost) -> u64 {
    host.now_ms() / 1000
}

fn fetches(host: &ScriptedHost) -> usize {
    host.sent().iter().filter(|sent| sent.request.url.ends_with(JWKS)).count()
}

/// Returns a host that has fetched the key `a` now.
fn warm() -> ScriptedHost {
    let host = host_at(NOW_MS);
    publish(&host, &["a"]);
    assert_eq!(send_new_token(&host, "a"), Ok(()));
    host.set_now_ms(NOW_MS);
    host
}

/// Returns all kinds of responses of a sign-in service without usable keys.
fn no_keys() -> Vec<(&'static str, Reply)> {
    let padded = |bytes: usize| [key_set(&["b"]).into_bytes(), vec![b' '; bytes]].concat();
    vec![
        ("down", Reply::unreachable()),
        ("silent", Reply::silence()),
        ("slower than the timeout", Reply::new(200).head_after(5001).say(key_set(&["b"]))),
        ("a body slower than the timeout", Reply::new(200).say("{\"keys\":[").wait(5001).say("]}")),
        ("500", Reply::new(500).say(key_set(&["b"]))),
        ("404", Reply::new(404)),
        ("a redirect", Reply::new(302).with("location", "https://keys.example/jwks.json")),
        ("HTML", Reply::new(200).with("content-type", "text/html").say("<!doctype html><title>Maintenance</title>")),
        ("nothing", Reply::new(200)),
        ("null", Reply::new(200).say("null")),
        ("an empty set", Reply::new(200).say("{\"keys\":[]}")),
        ("half a set", Reply::new(200).say(&key_set(&["b"])[..200])),
        ("a set whose connection is cut", Reply::new(200).say(&key_set(&["b"])[..200]).cut()),
        ("no UTF-8", Reply::new(200).say([b"{\"keys\":[{\"kty\":\"".as_slice(), &[0xff], b"\"}]}"].concat())),
        ("10 MB", Reply::new(200).say(padded(10 * 1024 * 1024))),
        (
            "only keys of unknown kinds",
            Reply::new(200).say(
                r#"{"keys":[{"kty":"AKP","kid":"b","alg":"ML-DSA-65","pub":"AA"},{"kty":"oct","kid":"b","k":"AA"},{"kty":"EC","crv":"P-521","kid":"b"},5,null]}"#,
            ),
        ),
    ]
}

#[test]
fn keys_that_cannot_be_refreshed_are_used_for_a_day() {
    for (what, answer) in no_keys() {
        let host = warm();
        host.always(JWKS, answer);
        for age_ms in [0, FRESH_MS, FRESH_MS + 1, 2 * FRESH_MS, STALE_MS / 2, STALE_MS] {
            host.set_now_ms(NOW_MS + age_ms);
            assert_eq!(send_new_token(&host, "a"), Ok(()), "{what} after {age_ms} ms");
        }
        host.set_now_ms(NOW_MS + STALE_MS - 60_000);
        assert_eq!(send_new_token(&host, "unknown"), Err(Refused::Invalid), "{what}");
        host.set_now_ms(NOW_MS + STALE_MS + 60_000);
        assert_eq!(send_new_token(&host, "a"), Err(Refused::NoKeys), "{what}");
        assert_eq!(send_new_token(&host, "unknown"), Err(Refused::NoKeys), "{what}");
    }
}

#[test]
fn a_failed_refresh_writes_a_point_with_the_age_of_the_keys() {
    for (what, answer) in no_keys() {
        let host = warm();
        host.always(JWKS, answer);
        assert_eq!(send_new_token(&host, "a"), Ok(()));
        assert_eq!(host.points(), [], "{what}: no refresh was due");
        host.set_now_ms(NOW_MS + 2 * FRESH_MS);
        assert_eq!(send_new_token(&host, "a"), Ok(()));
        let [(texts, figures)] = &host.points()[..] else { panic!("{what}: {:?}", host.points()) };
        assert_eq!(texts, &["job", "signing_keys", "unavailable"], "{what}");
        let [tries, age_ms] = figures[..] else { panic!("{what}: {figures:?}") };
        // The refresh itself takes up to its timeout.
        assert_eq!(tries, 0.0, "{what}");
        assert!((1_200_000.0..=1_206_000.0).contains(&age_ms), "{what}: {age_ms}");
    }
}

#[test]
fn a_refresh_without_any_key_writes_a_point_of_age_0() {
    let host = host_at(NOW_MS);
    host.always(JWKS, Reply::unreachable());
    assert_eq!(send_new_token(&host, "a"), Err(Refused::NoKeys));
    assert_eq!(
        host.points(),
        [(["job", "signing_keys", "unavailable"].map(str::to_owned).to_vec(), vec![0.0, 0.0])]
    );
}

#[test]
fn a_refresh_does_not_delay_a_token_with_a_cached_key() {
    for (what, answer) in no_keys() {
        let host = warm();
        host.always(JWKS, answer);
        host.set_now_ms(NOW_MS + FRESH_MS + 1);
        let config = config(false);
        assert!(
            authenticate_with(&host, &config, Some(&genuine_until("a", NOW_MS / 1000 + 7200))).is_ok(),
            "{what}"
        );
        assert_eq!(host_now_s(&host), (NOW_MS + FRESH_MS + 1) / 1000, "{what}: the clock has not moved");
        host.run_background();
        assert_eq!(fetches(&host), 2, "{what}: the refresh ran in the background");
    }
}

#[test]
fn without_keys_the_code_is_auth_unavailable_until_keys_come() {
    for (what, answer) in no_keys() {
        let host = host_at(NOW_MS);
        host.always(JWKS, answer);
        assert_eq!(send_new_token(&host, "a"), Err(Refused::NoKeys), "{what}");
        assert_eq!(Refused::NoKeys.to_problem().code.name(), "auth_unavailable");
        let waited_ms = host.now_ms() - NOW_MS;
        assert!(waited_ms <= 5010, "{what}: {waited_ms} ms");
        publish(&host, &["a"]);
        let retry_after_s = Refused::NoKeys.to_problem().retry_after_s.expect("it has a Retry-After");
        host.set_now_ms((host_now_s(&host) + retry_after_s) * 1000);
        assert_eq!(send_new_token(&host, "a"), Ok(()), "{what}");
    }
}

#[test]
fn keys_of_unknown_kinds_do_not_hide_those_beside_them() {
    let host = host_at(NOW_MS);
    let set = key_set(&["a"]).replacen(
        '[',
        r#"[{"kty":"AKP","kid":"a","alg":"ML-DSA-65"},7,{"kty":"EC","kid":"a","crv":"P-521"},"#,
        1,
    );
    host.always(JWKS, Reply::new(200).say(set));
    assert_eq!(send_new_token(&host, "a"), Ok(()));
}

#[test]
fn another_isolate_reads_keys_from_the_shared_cache_for_a_day() {
    for (age_ms, outcome) in [(0, Ok(())), (STALE_MS, Ok(())), (STALE_MS + 1000, Err(Refused::NoKeys))] {
        let host = warm();
        host.replace_isolate();
        host.always(JWKS, Reply::unreachable());
        host.set_now_ms(NOW_MS + age_ms);
        assert_eq!(send_new_token(&host, "a"), outcome, "after {age_ms} ms");
    }
    let host = warm();
    host.replace_isolate();
    assert_eq!(send_new_token(&host, "a"), Ok(()));
    assert_eq!(fetches(&host), 1, "fresh keys are not fetched again");
    host.set_now_ms(NOW_MS + FRESH_MS + 1);
    assert_eq!(send_new_token(&host, "a"), Ok(()));
    assert_eq!(fetches(&host), 2, "cached keys have the age of their fetch");
}

#[test]
fn a_rotated_key_works_within_one_refresh() {
    let host = warm();
    publish(&host, &["b", "a"]);
    assert_eq!(send_new_token(&host, "b"), Ok(()));
    assert_eq!(fetches(&host), 2);
    assert_eq!(send_new_token(&host, "a"), Ok(()));
    publish(&host, &["b"]);
    assert_eq!(send_new_token(&host, "a"), Ok(()), "the old set is still cached");
    host.set_now_ms(NOW_MS + 2 * FRESH_MS);
    assert_eq!(send_new_token(&host, "a"), Ok(()), "the refresh runs after this response");
    assert_eq!(send_new_token(&host, "a"), Err(Refused::Invalid));
    assert_eq!(send_new_token(&host, "b"), Ok(()));
}

#[test]
fn a_flood_of_unknown_keys_causes_one_fetch_in_thirty_seconds() {
    let host = warm();
    let flood = |host: &ScriptedHost| {
        for number in 0..100 {
            assert_eq!(send_new_token(host, &format!("unknown-{number}")), Err(Refused::Invalid));
        }
    };
    flood(&host);
    assert_eq!(fetches(&host), 2);
    let answered_ms = host.now_ms();
    host.set_now_ms(answered_ms + COOL_DOWN_MS - 1000);
    flood(&host);
    assert_eq!(fetches(&host), 2);
    publish(&host, &["b", "a"]);
    assert_eq!(send_new_token(&host, "b"), Err(Refused::Invalid), "the flood has used up the refresh");
    host.set_now_ms(answered_ms + COOL_DOWN_MS);
    assert_eq!(send_new_token(&host, "b"), Ok(()), "half a minute at most");
    flood(&host);
    assert_eq!(fetches(&host), 3);
}

#[test]
fn concurrent_requests_on_a_cold_isolate_cause_one_fetch() {
    let host = host_at(NOW_MS);
    host.always(JWKS, Reply::new(200).head_after(80).say(key_set(&["a"])));
    let config = config(false);
    let headers: Vec<String> =
        (0..20).map(|number| genuine_until("a", NOW_MS / 1000 + 60 + number)).collect();
    let requests = headers.iter().map(|header| {
        let token = BearerToken::read(Some(header)).expect("it is a token");
        authenticate(&host, &config, ORIGIN, token)
    });
    assert!(host.run(join_all(requests)).iter().all(Result::is_ok));
    assert_eq!(fetches(&host), 1);
}

#[test]
fn a_disconnected_caller_does_not_cancel_the_fetch() {
    let host = warm();
    publish(&host, &["b", "a"]);
    let config = config(false);
    let header = genuine("b");
    let token = BearerToken::read(Some(&header)).expect("it is a token");
    host.run(select(pin!(authenticate(&host, &config, ORIGIN, token)), ready(())));
    host.run_background();
    assert_eq!(send_new_token(&host, "b"), Ok(()));
    assert_eq!(fetches(&host), 2);
}

#[test]
fn a_bad_signature_by_a_cached_key_causes_no_fetch() {
    let host = warm();
    for number in 0..50 {
        let good = genuine_until("a", NOW_MS / 1000 + 100 + number);
        let (rest, _) = good.split_at(good.len() - 86);
        let forged = [rest, &"A".repeat(86)].concat();
        assert_eq!(authenticate_with(&host, &config(false), Some(&forged)), Err(Refused::Invalid));
    }
    host.run_background();
    assert_eq!(fetches(&host), 1);
}

#[test]
fn a_verified_token_is_not_verified_again_until_it_expires() {
    let host = warm();
    let config = config(false);
    let exp_s = NOW_MS / 1000 + 300;
    let header = genuine_until("a", exp_s);
    let before = host.signatures_checked();
    let at = |now_ms: u64| {
        host.set_now_ms(now_ms);
        authenticate_with(&host, &config, Some(&header)).map(|_| ())
    };
    for second in [0, 1, 200, 300, 330] {
        assert_eq!(at(NOW_MS + second * 1000), Ok(()), "after {second} s");
    }
    assert_eq!(host.signatures_checked(), before + 1);
    assert_eq!(at(NOW_MS + 330 * 1000 + 1), Err(Refused::Expired));
    host.replace_isolate();
    assert_eq!(authenticate_with(&host, &config, Some(&genuine_until("a", exp_s + 900))).map(|_| ()), Ok(()));
    assert_eq!(host.signatures_checked(), before + 3, "another isolate has no cached token");
}

#[test]
fn a_rejected_token_is_not_cached() {
    let host = warm();
    let config = config(false);
    let expired = genuine_until("a", NOW_MS / 1000 - 60);
    for _ in 0..2 {
        assert_eq!(authenticate_with(&host, &config, Some(&expired)), Err(Refused::Expired));
    }
    let good = genuine("a");
    let forged = [&good[..good.len() - 2], if good.ends_with("AA") { "BB" } else { "AA" }].concat();
    assert!(authenticate_with(&host, &config, Some(&good)).is_ok());
    assert_eq!(authenticate_with(&host, &config, Some(&forged)), Err(Refused::Invalid));
}

/// The settings of a platform that provides this key set.
fn configured(document: &str) -> Config {
    let mut config = config(false);
    config.supabase.jwks = Some(document.to_owned());
    config
}

/// Authenticates a token with these settings, and runs its background work to the end.
fn send_with(host: &ScriptedHost, config: &Config, header: &str) -> Result<(), Refused> {
    let outcome = authenticate_with(host, config, Some(header)).map(|_| ());
    host.run_background();
    outcome
}

#[test]
fn keys_of_the_settings_are_used_without_a_fetch() {
    let config = configured(&key_set(&["a"]));
    let host = host_at(NOW_MS);
    host.always(JWKS, Reply::unreachable());
    for age_ms in [0, FRESH_MS] {
        host.set_now_ms(NOW_MS + age_ms);
        assert_eq!(send_with(&host, &config, &genuine_until("a", NOW_MS / 1000 + 7200 + age_ms)), Ok(()));
    }
    assert_eq!((fetches(&host), host.cached_urls().len()), (0, 0));
    host.replace_isolate();
    assert_eq!(send_with(&host, &config, &genuine("a")), Ok(()));
    assert_eq!(fetches(&host), 0);
}

#[test]
fn a_key_that_the_settings_lack_is_fetched_once_in_thirty_seconds() {
    let config = configured(&key_set(&["a"]));
    let host = host_at(NOW_MS);
    publish(&host, &["b", "a"]);
    assert_eq!(send_with(&host, &config, &genuine("a")), Ok(()));
    assert_eq!(send_with(&host, &config, &genuine("b")), Ok(()), "a rotation needs no new settings");
    assert_eq!(fetches(&host), 1);
    for number in 0..20 {
        let unknown = genuine(&format!("unknown-{number}"));
        assert_eq!(send_with(&host, &config, &unknown), Err(Refused::Invalid));
    }
    assert_eq!(fetches(&host), 1, "the fetch of the new key has started the cool-down");
    host.set_now_ms(host.now_ms() + COOL_DOWN_MS);
    assert_eq!(send_with(&host, &config, &genuine("unknown")), Err(Refused::Invalid));
    assert_eq!(send_with(&host, &config, &genuine("unknown-again")), Err(Refused::Invalid));
    assert_eq!(fetches(&host), 2);
    assert_eq!(send_with(&host, &config, &genuine_until("a", NOW_MS / 1000 + 7000)), Ok(()));
}

#[test]
fn keys_of_the_settings_survive_a_failed_fetch_of_another_key() {
    let config = configured(&key_set(&["a"]));
    for (what, answer) in no_keys() {
        let host = host_at(NOW_MS);
        host.always(JWKS, answer);
        assert_eq!(send_with(&host, &config, &genuine("unknown")), Err(Refused::Invalid), "{what}");
        assert_eq!(send_with(&host, &config, &genuine("a")), Ok(()), "{what}");
    }
}

#[test]
fn keys_of_the_settings_are_refreshed_like_fetched_ones() {
    let config = configured(&key_set(&["a"]));
    let host = host_at(NOW_MS);
    publish(&host, &["b"]);
    let sent = |after_ms: u64| {
        host.set_now_ms(NOW_MS + after_ms);
        send_with(&host, &config, &genuine_until("a", NOW_MS / 1000 + 7200 + after_ms))
    };
    assert_eq!(sent(0), Ok(()));
    assert_eq!(sent(FRESH_MS + 1), Ok(()), "the refresh runs in the background");
    assert_eq!(fetches(&host), 1);
    assert_eq!(sent(FRESH_MS + 2), Err(Refused::Invalid), "its key has left the published set");
}

#[test]
fn settings_without_a_usable_key_cause_a_fetch() {
    for document in ["{\"keys\":[]}", r#"{"keys":[{"kty":"oct","kid":"a","k":"AA"},5]}"#] {
        let host = host_at(NOW_MS);
        publish(&host, &["a"]);
        assert_eq!(send_with(&host, &configured(document), &genuine("a")), Ok(()));
        assert_eq!(fetches(&host), 1, "{document}");
    }
}

/// Authenticates a token again, and runs its background work to the end.
fn resend(host: &ScriptedHost, header: &str) -> Result<(), Refused> {
    let outcome = authenticate_with(host, &config(true), Some(header)).map(|_| ());
    host.run_background();
    outcome
}

#[test]
fn a_verified_token_is_rejected_once_its_key_has_left_the_set() {
    let host = warm();
    let old = genuine_until("a", NOW_MS / 1000 + 7 * 86_400);
    assert_eq!(resend(&host, &old), Ok(()));
    publish(&host, &["b"]);
    assert_eq!(send_new_token(&host, "b"), Ok(()), "its unknown key loads the new set");
    assert_eq!(resend(&host, &old), Err(Refused::Invalid));
    publish(&host, &["b", "a"]);
    host.set_now_ms(NOW_MS + COOL_DOWN_MS + 10_000);
    assert_eq!(resend(&host, &old), Ok(()), "the key is published again");
}

#[test]
fn verified_tokens_alone_keep_the_keys_fresh() {
    let host = warm();
    let header = genuine_until("a", NOW_MS / 1000 + 86_400);
    assert_eq!(resend(&host, &header), Ok(()));
    publish(&host, &["b"]);
    host.set_now_ms(NOW_MS + FRESH_MS);
    assert_eq!(resend(&host, &header), Ok(()));
    assert_eq!(fetches(&host), 1, "the keys are fresh");
    host.set_now_ms(NOW_MS + FRESH_MS + 1);
    assert_eq!(resend(&host, &header), Ok(()), "the refresh runs in the background");
    assert_eq!(fetches(&host), 2);
    assert_eq!(resend(&host, &header), Err(Refused::Invalid), "the new set is loaded");
}

#[test]
fn a_verified_token_is_rejected_without_a_usable_key_set() {
    let host = warm();
    let header = genuine_until("a", NOW_MS / 1000 + 7 * 86_400);
    assert_eq!(resend(&host, &header), Ok(()));
    host.always(JWKS, Reply::unreachable());
    host.set_now_ms(NOW_MS + STALE_MS);
    assert_eq!(resend(&host, &header), Ok(()));
    host.set_now_ms(NOW_MS + STALE_MS + 60_000);
    assert_eq!(resend(&host, &header), Err(Refused::NoKeys));
    publish(&host, &["a"]);
    host.set_now_ms(NOW_MS + STALE_MS + 120_000);
    assert_eq!(resend(&host, &header), Ok(()));
}

#[test]
fn the_secret_verifies_no_token_that_names_a_published_key() {
    let host = host_at(NOW_MS);
    publish(&host, &["a"]);
    assert_eq!(resend(&host, &genuine_by_secret(Some("a"))), Err(Refused::Invalid), "on a cold isolate");
    assert_eq!(host.signatures_checked(), 0);
    let named = genuine_by_secret(Some("b"));
    assert_eq!(resend(&host, &named), Ok(()));
    publish(&host, &["b", "a"]);
    host.set_now_ms(host.now_ms() + FRESH_MS + 1);
    assert_eq!(resend(&host, &named), Ok(()), "the old set is still cached");
    assert_eq!(resend(&host, &named), Err(Refused::Invalid), "a key of that name is published");
    assert_eq!(resend(&host, &genuine_by_secret(None)), Ok(()));
}

#[test]
fn a_project_on_a_secret_needs_the_key_set_only_for_tokens_with_a_kid() {
    for (what, answer) in
        no_keys().into_iter().filter(|(what, _)| !what.contains("set") && !what.contains("only keys"))
    {
        let host = host_at(NOW_MS);
        host.always(JWKS, answer);
        assert_eq!(resend(&host, &genuine_by_secret(None)), Ok(()), "{what}");
        assert_eq!(fetches(&host), 0, "{what}");
        assert_eq!(resend(&host, &genuine_by_secret(Some("b"))), Err(Refused::NoKeys), "{what}");
    }
    let host = host_at(NOW_MS);
    host.always(JWKS, Reply::new(200).say("{\"keys\":[]}"));
    assert_eq!(resend(&host, &genuine_by_secret(Some("b"))), Ok(()), "such a project publishes no keys");
}

#[test]
fn a_flood_of_hs256_tokens_with_unknown_kids_causes_one_fetch() {
    let host = warm();
    for number in 0..100 {
        let forged = genuine_by_secret(Some(&format!("unknown-{number}")));
        let forged = [&forged[..forged.len() - 2], if forged.ends_with("AA") { "BB" } else { "AA" }].concat();
        assert_eq!(resend(&host, &forged), Err(Refused::Invalid));
    }
    assert_eq!(fetches(&host), 2);
}

#[test]
fn the_key_set_is_cached_under_the_services_own_host_for_one_project() {
    let host = warm();
    let urls = host.cached_urls();
    assert_eq!(urls.len(), 1);
    assert!(urls.iter().all(|url| url.starts_with(&[ORIGIN, "/.well-known/"].concat())), "{urls:?}");

    // Another project's deployment on the same host.
    host.replace_isolate();
    publish(&host, &["b"]);
    let mut other = config(false);
    other.supabase.url = "https://q.supabase.co".to_owned();
    let of_this_project = authenticate_with(&host, &other, Some(&genuine_until("a", NOW_MS / 1000 + 77)));
    assert_eq!(of_this_project.map(|_| ()), Err(Refused::Invalid), "its keys are those of its own project");
    assert!(fetches(&host) > 1, "it has fetched them");
    host.run_background();
    assert_eq!(host.cached_urls().len(), 2);
}
