-- An access token may be traded for one that lives longer, where there is no refresh token.
-- `refresh_token` holds, sealed, what renews the grant, whatever that is: a refresh token, the access token, or what is
-- asked for anew by the client's credentials or by an assertion.
ALTER TABLE {schema}.grants
    DROP CONSTRAINT grants_strategy_check,
    ADD CONSTRAINT grants_strategy_check
        CHECK (strategy IN ('refresh_token', 'client_credentials', 'jwt_bearer', 'token_exchange', 'none'));
