//! Every word that a person reads, in one place for translation.

/// The language of all of them.
pub(crate) const LANGUAGE: &str = "en";

/// What a page says: its title, what happened, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) title: &'static str,
    pub(crate) what: &'static str,
    pub(crate) advice: &'static str,
}

pub(crate) mod consent {
    pub(crate) const TITLE: (&str, &str) = ("Connect ", "");
    pub(crate) const TITLE_OF_SEVERAL: &str = "Choose what to connect";
    /// Before the provider's name, and behind it.
    pub(crate) const ASKS: (&str, &str) = (" asks for access to an account at ", ".");
    pub(crate) const ASKS_FOR_ONE: &str = " asks for access to one of your accounts.";
    pub(crate) const FOR_WHOM: &str = "It will be connected for";
    pub(crate) const USER: &str = "User";
    pub(crate) const TENANT: &str = "Company";
    pub(crate) const PROVIDER: &str = "Provider";
    pub(crate) const NEXT: &str =
        "You will sign in at the provider, and decide there what may be read.";
    pub(crate) const NOT_YOU: &str = "If that is not you, or you did not ask for this, close this page. Nothing has happened yet.";
    pub(crate) const BUTTON: &str = "Continue to ";
    pub(crate) const HELP: &str = "Questions? Ask ";
}

pub(crate) mod choice {
    pub(crate) const TITLE: &str = "Choose an account";
    pub(crate) const WHAT: (&str, &str) = (
        "Your sign-in at ",
        " reaches several accounts. One of them will be connected.",
    );
    pub(crate) const LEGEND: &str = "Accounts";
    pub(crate) const BUTTON: &str = "Connect this account";
}

pub(crate) mod pages {
    use super::Words;

    pub(crate) const SUCCEEDED: Words = Words {
        title: "Connected",
        what: "The account is connected.",
        advice: "You can close this page and go back to the application.",
    };
    pub(crate) const AWAITING: Words = Words {
        title: "Almost done",
        what: "The account was authorised, and the application still has to confirm it.",
        advice: "Go back to the application.",
    };
    pub(crate) const DECLINED: Words = Words {
        title: "Not connected",
        what: "The access was declined at the provider, so nothing was connected.",
        advice: "If that was a mistake, go back to the application and start again.",
    };
    pub(crate) const ALREADY_CONNECTED: Words = Words {
        title: "This account is in use",
        what: "The account is connected already by somebody else, and it can be connected only once.",
        advice: "Go back to the application and choose another account, or ask whoever uses it to disconnect it.",
    };
    pub(crate) const OTHER_ACCOUNT: Words = Words {
        title: "That was another account",
        what: "You signed in with another account than the one that was connected before, so nothing was changed.",
        advice: "Go back to the application, start again, and sign in with the account that was connected.",
    };
    pub(crate) const MISCONFIGURED: Words = Words {
        title: "Not connected",
        what: "The provider does not accept this application's settings.",
        advice: "Nothing you did was wrong. Tell the people who run the application.",
    };
    pub(crate) const TEMPORARY: Words = Words {
        title: "Not connected yet",
        what: "The provider, or a part of this service, did not answer.",
        advice: "Go back to the application and try again in a few minutes.",
    };
    pub(crate) const FAILED: Words = Words {
        title: "Not connected",
        what: "The provider did not let the connection be made.",
        advice: "Go back to the application and start again.",
    };
    pub(crate) const EXPIRED: Words = Words {
        title: "This link is too old",
        what: "It was not used in time, so nothing was connected.",
        advice: "Go back to the application and start again; it makes a new link.",
    };
    pub(crate) const UNKNOWN: Words = Words {
        title: "This link does not work",
        what: "It is incomplete, or too old to be known.",
        advice: "Go back to the application and start again; it makes a new link.",
    };
    pub(crate) const UNKNOWN_STATE: Words = Words {
        title: "This answer does not belong here",
        what: "It is to no request of this browser's, or to one that is too old. Nothing was connected.",
        advice: "Go back to the application and start again.",
    };
    pub(crate) const OTHER_BROWSER: Words = Words {
        title: "Opened in another browser",
        what: "This link is being used in another browser, and it works in one alone.",
        advice: "Go on there, or go back to the application and start again here.",
    };
    pub(crate) const COOKIES: Words = Words {
        title: "The page has to be opened from its link",
        what: "This browser does not know the link, or does not keep cookies.",
        advice: "Allow cookies for this page and open the link again.",
    };
    pub(crate) const BROKEN: Words = Words {
        title: "Something went wrong",
        what: "The service could not do this now.",
        advice: "Try again in a few minutes.",
    };
}

pub(crate) mod status {
    pub(crate) const NOT_CONFIGURED: &str = "The provider does not accept this application's settings. Ask your administrator to look at the integration.";
    pub(crate) const DEGRADED: &str = "The connection works, but it could not be renewed just now. It is being tried again; there is nothing to do.";
    pub(crate) const RECONNECT: &str = "The provider ended the access. Connect again to go on.";
    pub(crate) const UNCLAIMED: &str =
        "This connection belongs to nobody yet. Connect to take it over.";
    pub(crate) const NO_ACCOUNT: &str = "No account is selected. Select one to go on.";
}
