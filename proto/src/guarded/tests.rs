//! The promises of the table: guarded names, names that pass, and a search that sees every row.

use proptest::prelude::*;

use super::*;

/// A name that `pattern` matches.
fn sample(pattern: &str) -> String {
    pattern.replace('*', "XYZ")
}

fn patterns() -> impl Iterator<Item = &'static str> {
    families().iter().flat_map(Family::names)
}

#[test]
fn every_row_of_the_table_is_found_in_either_case() {
    for pattern in patterns() {
        let name = sample(pattern);
        assert!(is_guarded(name.as_bytes()), "{name}");
        assert!(is_guarded(name.to_ascii_lowercase().as_bytes()), "{name} in lower case");
    }
}

#[test]
fn every_row_has_a_reason_and_a_source() {
    for family in families() {
        assert!(
            !family.reason.is_empty() && !family.source.is_empty() && family.names().count() > 0,
            "{family:?}"
        );
    }
}

#[test]
fn patterns_are_upper_case_names_with_at_most_one_star() {
    for pattern in patterns().chain(families().iter().flat_map(Family::exceptions)) {
        let plain = pattern.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'*'));
        assert!(plain && pattern.matches('*').count() <= 1 && pattern.len() > 1, "{pattern}");
    }
}

/// The search takes the last entry that is not greater than the name for the only candidate.
#[test]
fn no_entry_is_covered_by_another() {
    let of = |text: &'static str| (text, Pattern::new(text));
    let ordered: Vec<_> = patterns().map(of).filter(|(_, pattern)| pattern.suffix.is_empty()).collect();
    for (text, pattern) in &ordered {
        let covering =
            ordered.iter().filter(|(_, other)| other.matches(pattern.start)).map(|(text, _)| *text);
        let others: Vec<&str> = covering.filter(|other| other != text).collect();
        assert!(others.is_empty(), "{text} is covered by {others:?}");
    }
    let mut all: Vec<&str> = patterns().collect();
    all.sort_unstable();
    let twice: Vec<_> = all.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn every_exception_is_an_exception_from_its_family() {
    for family in families() {
        for exception in family.exceptions() {
            let name = sample(exception);
            let covered = family.names().any(|text| Pattern::new(text).matches(name.as_bytes()));
            assert!(covered && !is_guarded(name.as_bytes()), "{exception} of {:?}", family.source);
        }
    }
}

/// `env_delete` and `env_check` of sudo 1.9 (plugins/sudoers/env.c), with a sample for each pattern.
#[test]
fn all_that_sudo_takes_away_is_guarded() {
    let names = "IFS CDPATH LOCALDOMAIN RES_OPTIONS HOSTALIASES NLSPATH PATH_LOCALE LD_PRELOAD _RLD_LIST SHLIB_PATH LDR_PRELOAD \
                 LIBPATH AUTHSTATE DYLD_INSERT_LIBRARIES KRB5_CONFIG KRB5_KTNAME VAR_ACE USR_ACE DLC_ACE TERMINFO TERMINFO_DIRS \
                 TERMPATH TERMCAP ENV BASH_ENV PS4 GLOBIGNORE BASHOPTS SHELLOPTS JAVA_TOOL_OPTIONS PERLIO_DEBUG PERLLIB PERL5LIB \
                 PERL5OPT PERL5DB FPATH NULLCMD READNULLCMD ZDOTDIR TMPPREFIX PYTHONHOME PYTHONPATH PYTHONINSPECT PYTHONUSERBASE \
                 RUBYLIB RUBYOPT COLORTERM LANG LANGUAGE LC_ALL LINGUAS TERM TZ";
    assert_guarded(names);
}

#[test]
fn names_that_alone_run_code_or_move_trust_are_guarded() {
    assert_guarded(
        "PS1 MAKEFLAGS TAR_OPTIONS ZIPOPT LUA_INIT_5_4 LUA_PATH_5_4 LUA_CPATH_5_4 CORECLR_PROFILER_PATH \
         CORECLR_PROFILER_PATH_64 DOTNET_ADDITIONAL_DEPS SSH_ASKPASS SUDO_ASKPASS GIT_ASKPASS GIT_SEQUENCE_EDITOR \
         GIT_TEMPLATE_DIR GIT_CONFIG_KEY_0 VIMINIT EXINIT R_PROFILE_USER JULIA_LOAD_PATH ERL_AFLAGS RUSTC_WRAPPER \
         NODE_EXTRA_CA_CERTS SSL_CERT_FILE SSL_CERT_DIR npm_config_script_shell NPM_CONFIG_NODE_OPTIONS http_proxy HTTPS_PROXY \
         LESSOPEN PAGER AWS_PAGER KUBE_EDITOR GLIBC_TUNABLES BASH_FUNC_ls PROMPT_COMMAND DEVBOX_SECRETS_SOCKET NOTIFY_SOCKET \
         CREDENTIALS_DIRECTORY PIP_INDEX_URL GOFLAGS CARGO_REGISTRIES_MINE_INDEX CARGO_TARGET_X_LINKER CC CFLAGS \
         SPRING_JAVA_OPTS GRADLE_OPTS MAVEN_OPTS RIPGREP_CONFIG_PATH FZF_DEFAULT_COMMAND KUBECONFIG TF_CLI_ARGS_plan \
         PYTHONSTARTUP PATH path HOME LD_AUDIT AWKLIBPATH shell_escape OPENSSL OPENSSL_MODULES GIT_GRAFT_FILE HIPCXX SWIFTC RC \
         TF_ENCRYPTION RESTIC_PASSWORD_COMMAND RCLONE_PASSWORD_COMMAND BORG_PASSCOMMAND BORG_RSH SOPS_AGE_KEY_CMD SOPS_GPG_EXEC \
         PHP_PEAR_PHP_BIN",
    );
}

#[track_caller]
fn assert_guarded(names: &str) {
    let open: Vec<&str> =
        names.split_ascii_whitespace().filter(|name| !is_guarded(name.as_bytes())).collect();
    assert!(open.is_empty(), "not guarded: {open:?}");
}

/// Names that documentation of services and CI systems give to secrets and connection settings.
#[test]
fn names_that_users_commonly_give_to_secrets_pass() {
    let names = "DATABASE_URL DATABASE_PASSWORD DB_HOST DB_PASS DB_PASSWORD DB_USER REDIS_URL REDIS_PASSWORD MONGO_URL MONGODB_URI \
        POSTGRES_PASSWORD POSTGRES_USER POSTGRES_URL PGPASSWORD PGHOST PGUSER PGDATABASE PGPORT PGSSLMODE MYSQL_ROOT_PASSWORD \
        MYSQL_PASSWORD MYSQL_PWD MYSQL_DATABASE CLICKHOUSE_PASSWORD ELASTIC_PASSWORD RABBITMQ_DEFAULT_PASS KAFKA_PASSWORD AMQP_URL \
        AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_REGION AWS_DEFAULT_REGION AWS_PROFILE AWS_ROLE_ARN AWS_ENDPOINT_URL \
        AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_TENANT_ID AZURE_OPENAI_API_KEY ARM_CLIENT_SECRET GOOGLE_API_KEY GEMINI_API_KEY \
        GOOGLE_APPLICATION_CREDENTIALS GOOGLE_CLIENT_SECRET GCP_SA_KEY CLOUDFLARE_API_TOKEN CF_API_KEY DIGITALOCEAN_ACCESS_TOKEN \
        LINODE_TOKEN HCLOUD_TOKEN FLY_API_TOKEN HEROKU_API_KEY VERCEL_TOKEN NETLIFY_AUTH_TOKEN RENDER_API_KEY SUPABASE_KEY \
        SUPABASE_URL SUPABASE_SERVICE_ROLE_KEY FIREBASE_TOKEN NEON_API_KEY PLANETSCALE_TOKEN OPENAI_API_KEY ANTHROPIC_API_KEY \
        ANTHROPIC_BASE_URL OPENAI_BASE_URL HF_TOKEN HUGGINGFACE_TOKEN HUGGING_FACE_HUB_TOKEN COHERE_API_KEY MISTRAL_API_KEY GROQ_API_KEY \
        REPLICATE_API_TOKEN TOGETHER_API_KEY PERPLEXITY_API_KEY PINECONE_API_KEY LANGCHAIN_API_KEY LANGFUSE_SECRET_KEY WANDB_API_KEY \
        GITHUB_TOKEN GH_TOKEN GITHUB_PAT GITLAB_TOKEN CI_JOB_TOKEN BITBUCKET_TOKEN GIT_TOKEN GIT_PASSWORD GIT_USERNAME \
        GIT_SSH_KEY GIT_SSH_PRIVATE_KEY GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME SSH_PRIVATE_KEY SSH_KEY DEPLOY_KEY NPM_TOKEN \
        NPM_AUTH_TOKEN NODE_AUTH_TOKEN NODE_ENV YARN_NPM_AUTH_TOKEN PYPI_TOKEN PYPI_API_TOKEN TWINE_USERNAME TWINE_PASSWORD \
        UV_PUBLISH_TOKEN UV_INDEX_PRIVATE_PASSWORD POETRY_PYPI_TOKEN_PYPI POETRY_HTTP_BASIC_MINE_PASSWORD CARGO_REGISTRY_TOKEN \
        CARGO_REGISTRIES_MINE_TOKEN GEM_HOST_API_KEY RUBYGEMS_API_KEY BUNDLE_GITHUB__COM BUNDLE_GEMS__CONTRIBSYS__COM COMPOSER_AUTH \
        HEX_API_KEY NUGET_API_KEY NUGET_TOKEN MAVEN_USERNAME MAVEN_PASSWORD MAVEN_CENTRAL_TOKEN SONATYPE_PASSWORD OSSRH_TOKEN \
        GRADLE_PUBLISH_KEY GRADLE_PUBLISH_SECRET ORG_GRADLE_PROJECT_signingKey SIGNING_KEY GPG_PRIVATE_KEY GPG_PASSPHRASE \
        DOCKER_USERNAME DOCKER_PASSWORD DOCKER_TOKEN DOCKERHUB_TOKEN DOCKER_AUTH_CONFIG REGISTRY_PASSWORD HOMEBREW_GITHUB_API_TOKEN \
        KUBE_TOKEN VAULT_TOKEN VAULT_ADDR CONSUL_HTTP_TOKEN TF_VAR_db_password TF_TOKEN_app_terraform_io ANSIBLE_VAULT_PASSWORD \
        PULUMI_ACCESS_TOKEN SLACK_BOT_TOKEN SLACK_WEBHOOK_URL SLACK_SIGNING_SECRET DISCORD_TOKEN TELEGRAM_BOT_TOKEN TWILIO_AUTH_TOKEN \
        TWILIO_ACCOUNT_SID SENDGRID_API_KEY MAILGUN_API_KEY POSTMARK_TOKEN RESEND_API_KEY SMTP_PASSWORD SMTP_HOST MAIL_PASSWORD \
        MAIL_HOST MAILCHIMP_API_KEY STRIPE_SECRET_KEY STRIPE_WEBHOOK_SECRET STRIPE_API_KEY PAYPAL_CLIENT_SECRET SHOPIFY_API_SECRET \
        SENTRY_DSN SENTRY_AUTH_TOKEN DATADOG_API_KEY DD_API_KEY DD_APP_KEY NEW_RELIC_LICENSE_KEY HONEYCOMB_API_KEY GRAFANA_TOKEN \
        LOGTAIL_TOKEN ALGOLIA_API_KEY MAPBOX_TOKEN JIRA_API_TOKEN LINEAR_API_KEY NOTION_TOKEN FIGMA_TOKEN AIRTABLE_API_KEY \
        SNYK_TOKEN SONAR_TOKEN CODECOV_TOKEN COVERALLS_REPO_TOKEN CIRCLE_TOKEN BUILDKITE_AGENT_TOKEN RUNLOOP_API_KEY E2B_API_KEY \
        MODAL_TOKEN_ID MODAL_TOKEN_SECRET JWT_SECRET SECRET_KEY SECRET_KEY_BASE RAILS_MASTER_KEY DJANGO_SECRET_KEY FLASK_SECRET_KEY \
        APP_KEY APP_SECRET API_KEY API_TOKEN API_SECRET ACCESS_TOKEN AUTH_TOKEN AUTH_SECRET NEXTAUTH_SECRET SESSION_SECRET COOKIE_SECRET \
        ENCRYPTION_KEY MASTER_KEY PRIVATE_KEY PASSWORD PASSPHRASE TOKEN SECRET KEY USERNAME USER WEBHOOK_SECRET OAUTH_CLIENT_SECRET \
        CLIENT_ID CLIENT_SECRET AUTH0_CLIENT_SECRET OKTA_TOKEN CLERK_SECRET_KEY SNOWFLAKE_PASSWORD DATABRICKS_TOKEN DBT_PASSWORD \
        JUPYTER_TOKEN RSYNC_PASSWORD SSHPASS LDAP_PASSWORD KEYSTORE_PASSWORD ANDROID_KEYSTORE_PASSWORD MATCH_PASSWORD \
        FASTLANE_PASSWORD EXPO_TOKEN LICENSE_KEY ADMIN_PASSWORD ROOT_PASSWORD PORT HOST URL S3_BUCKET MINIO_SECRET_KEY R_API \
        MY_PATH OLD_KEY CC_API_TOKEN CI MAKE_API_KEY";
    let refused: Vec<_> = names
        .split_ascii_whitespace()
        .filter_map(|name| Some((name, family_of(name.as_bytes())?.source)))
        .collect();
    assert!(refused.is_empty(), "guarded: {refused:?}");
    assert!(!is_guarded(b""));
}

proptest! {
    #[test]
    fn the_search_finds_what_a_look_at_every_row_finds(
        name in "[A-Ca-cG-Jg-jL-Pl-p_]{0,4}(_?[A-Z_]{0,6})?", row in any::<prop::sample::Index>(), tail in "[A-Za-z_]{0,3}",
    ) {
        let all: Vec<&str> = patterns().collect();
        for name in [name, format!("{}{tail}", row.get(&all).trim_end_matches('*'))] {
            let by_row = families().iter().any(|family| {
                let has = |mut texts: Box<dyn Iterator<Item = &'static str>>| texts.any(|text| Pattern::new(text).matches(name.as_bytes()));
                has(Box::new(family.names())) && !has(Box::new(family.exceptions()))
            });
            prop_assert_eq!(is_guarded(name.as_bytes()), by_row, "{}", name);
        }
    }
}
