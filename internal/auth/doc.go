// Package auth turns a trigger's authenticationRef into parameters: it reads the TriggerAuthentication or
// ClusterTriggerAuthentication and what that takes from Secrets, ConfigMaps, the environment of the Job's containers, a
// file, HashiCorp Vault and tokens of service accounts.
//
// It knows neither triggers nor controllers, keeps nothing between calls but tokens and other secrets that end, logs
// nothing, and never puts a value into an error. What KEDA answers with an empty value - a Secret, a key or a variable
// that does not exist - is an error here, because an empty password fails later and says less.
package auth
