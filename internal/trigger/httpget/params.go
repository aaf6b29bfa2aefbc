package httpget

import (
	"net/url"
	"slices"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Names of parameters.
const (
	paramModes        = "authModes"
	paramBearerToken  = "bearerToken"
	paramUsername     = "username"
	paramPassword     = "password"
	paramCert         = "cert"
	paramKey          = "key"
	paramCA           = "ca"
	paramCustomHeader = "customAuthHeader"
	paramCustomValue  = "customAuthValue"
	paramAPIKey       = "apiKey"
	paramMethod       = "method"
	paramKeyParam     = "keyParamName"
	paramUnsafeSSL    = "unsafeSsl"
	paramTimeout      = "timeout"
)

// Kinds of authentication, which authModes lists.
const (
	modeAPIKey = "apiKey"
	modeBasic  = "basic"
	modeTLS    = "tls"
	modeBearer = "bearer"
	modeCustom = "custom"
	modeOAuth  = "oauth"
)

// methodQuery is the method that sends the API key in the URL's query; methodHeader sends it in a header.
const (
	methodQuery  = "query"
	methodHeader = "header"
)

// AuthParams declares the parameters of authentication and TLS that KEDA's pkg/scalers/authentication reads, which its
// schema file leaves out. A type declares unsafeSsl and timeout itself.
func AuthParams() []trigger.Param {
	authOnly := []trigger.Source{trigger.FromAuth}
	metadataToo := []trigger.Source{trigger.FromMetadata, trigger.FromAuth}
	params := []trigger.Param{
		{
			Name: paramModes, Aliases: []string{"authMode"}, Kind: trigger.List, Sources: metadataToo,
			Allowed:   []string{modeAPIKey, modeBasic, modeTLS, modeBearer, modeCustom, modeOAuth},
			Exclusive: []string{modeBearer, modeBasic, modeOAuth},
			Doc: "The kinds of authentication to use, separated by commas: basic, bearer, apiKey, custom and tls. " +
				"Nothing is sent unless it is given.",
		},
		{
			Name: paramBearerToken, Aliases: []string{"token"}, Kind: trigger.String, Secret: true, Sources: authOnly,
			Doc: "The token of authentication bearer.",
		},
		{Name: paramUsername, Kind: trigger.String, Sources: authOnly, Doc: "The user of authentication basic."},
		{
			Name: paramPassword, Kind: trigger.String, Secret: true, Sources: authOnly,
			Doc: "The password of authentication basic; empty unless given.",
		},
		{
			Name: paramCert, Kind: trigger.String, Sources: authOnly,
			Doc: "The client's certificate of authentication tls, PEM.",
		},
		{
			Name: paramKey, Kind: trigger.String, Secret: true, Sources: authOnly,
			Doc: "The private key of the client's certificate, PEM.",
		},
		{
			Name: paramCA, Kind: trigger.String, Sources: authOnly,
			Doc: "Certificates, PEM, of authorities that are trusted besides the system's; used whatever authModes says.",
		},
		{
			Name: paramCustomHeader, Kind: trigger.String, Sources: authOnly,
			Doc: "The name of the header of authentication custom.",
		},
		{
			Name: paramCustomValue, Kind: trigger.String, Secret: true, Sources: authOnly,
			Doc: "The value of the header of authentication custom.",
		},
		{
			Name: paramAPIKey, Kind: trigger.String, Secret: true, Sources: metadataToo,
			Doc: "The key of authentication apiKey.",
		},
		{
			Name: paramMethod, Kind: trigger.String, Default: methodHeader, Allowed: []string{methodHeader, methodQuery},
			Sources: metadataToo,
			Doc:     "Whether the API key is sent in a header or in the query of the URL.",
		},
		{
			Name: paramKeyParam, Kind: trigger.String, Sources: metadataToo,
			Doc: "The name of the header or of the query's parameter that holds the API key; X-API-KEY or api_key unless given.",
		},
	}
	for i := range params {
		params[i].Optional, params[i].Unlisted = true, true
	}
	return params
}

// needs lists what a kind of authentication cannot do without.
var needs = map[string][]string{
	modeBearer: {paramBearerToken},
	modeBasic:  {paramUsername},
	modeTLS:    {paramCert, paramKey},
	modeCustom: {paramCustomHeader, paramCustomValue},
	modeAPIKey: {paramAPIKey},
}

// Check finds what contradicts among the parameters of authentication.
func Check(values trigger.Values) []trigger.ParamError {
	if !values.Known(paramModes) {
		return nil
	}
	var findings []trigger.ParamError
	for _, mode := range values.List(paramModes) {
		if mode == modeOAuth {
			findings = append(findings, trigger.ParamError{Key: values.Key(paramModes), Warning: true,
				Message: "holds oauth, which has no effect on this trigger type, as in KEDA"})
		}
		for _, name := range needs[mode] {
			if values.Known(name) && !values.Has(name) {
				findings = append(findings, trigger.ParamError{Key: name,
					Message: "is required by " + values.Key(paramModes) + " " + mode + "; give it in a TriggerAuthentication"})
			}
		}
	}
	return findings
}

// URL returns the address that the parameter gives: http or https with a host.
func URL(values trigger.Values, name string) (*url.URL, *trigger.ParamError) {
	text := values.String(name)
	address, err := url.Parse(text)
	if err == nil && slices.Contains([]string{"http", "https"}, address.Scheme) && address.Hostname() != "" {
		return address, nil
	}
	finding := &trigger.ParamError{
		Key: values.Key(name), Message: "is not the address of a server; give an URL that begins with http:// or https://",
	}
	if !strings.Contains(text, "@") { // there may be a password
		finding.Value = text
	}
	return nil, finding
}
