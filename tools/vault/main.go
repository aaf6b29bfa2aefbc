// Vault's own code as one small server for tests: in memory, unsealed, without the clouds' plugins. It has KV and PKI as
// engines, which tests mount, and kubernetes as a way to sign in. Its arguments are the address to listen on and the
// root token.
package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// What there is to mount.
var (
	engines = map[string]logical.Factory{"kv": kv.Factory, "pki": pki.Factory}
	methods = map[string]logical.Factory{"kubernetes": kubernetes.Factory}
)

// builtin tells the server what there is to mount.
type builtin struct{}

func (builtin) find(name string, kind consts.PluginType) (logical.Factory, bool) {
	known := engines
	if kind == consts.PluginTypeCredential {
		known = methods
	}
	factory, found := known[name]
	return factory, found
}

// Contains implements plugincatalog.BuiltinRegistry, as do the others.
func (b builtin) Contains(name string, kind consts.PluginType) bool {
	_, found := b.find(name, kind)
	return found
}

func (b builtin) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, found := b.find(name, kind)
	return func() (any, error) { return factory, nil }, found
}

func (builtin) Keys(kind consts.PluginType) []string {
	switch kind {
	case consts.PluginTypeCredential:
		return slices.Sorted(maps.Keys(methods))
	case consts.PluginTypeSecrets:
		return slices.Sorted(maps.Keys(engines))
	}
	return nil
}

func (b builtin) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b.Contains(name, kind)
}

func (builtin) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vault ADDRESS ROOT-TOKEN")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, rootToken string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Warn})
	storage, err := inmem.NewInmem(nil, log)
	if err != nil {
		return err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical: storage, DisableMlock: true, Logger: log,
		LogicalBackends: engines, CredentialBackends: methods, BuiltinRegistry: builtin{},
	})
	if err != nil {
		return err
	}
	ctx := namespace.RootContext(context.Background())
	made, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
	})
	if err != nil {
		return err
	}
	if _, err := core.Unseal(made.SecretShares[0]); err != nil {
		return err
	}
	// A root token of that name, as the development server makes one.
	reply, err := core.HandleRequest(ctx, &logical.Request{
		Operation: logical.UpdateOperation, ClientToken: made.RootToken, Path: "auth/token/create",
		Data: map[string]any{"id": rootToken, "policies": []string{"root"}, "no_parent": true},
	})
	if err != nil {
		return err
	}
	if reply.IsError() {
		return reply.Error()
	}
	fmt.Println("unseal key", fmt.Sprintf("%x", made.SecretShares[0]))
	server := &http.Server{
		Handler:           vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}}),
		ReadHeaderTimeout: time.Minute,
	}
	return server.Serve(listener)
}
