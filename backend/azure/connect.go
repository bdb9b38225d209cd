package azure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// The variables are those of Azure's own tools.
const (
	accountEnv = "AZURE_STORAGE_ACCOUNT"
	keyEnv     = "AZURE_STORAGE_KEY"
	sasEnv     = "AZURE_STORAGE_SAS_TOKEN"
)

func (o *Options) fromEnv() {
	if o.Account == "" && o.Endpoint == "" {
		o.Account = os.Getenv(accountEnv)
	}
	if o.Key == "" && !o.Anonymous {
		o.Key = os.Getenv(keyEnv)
	}
}

// auth is how requests are signed; at most one field is set.
type auth struct {
	key   *azcontainer.SharedKeyCredential
	token azcore.TokenCredential
	sas   string // a query
}

// connect makes the client, lists one blob, which shows whether all is well, and
// asks what kind of account it is.
func (c *container) connect(ctx context.Context, opts *Options) error {
	clientOptions := &azcontainer.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: c.HTTPClient(),
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}}
	err := c.signIn(opts, clientOptions)
	if err != nil {
		return backend.Fail("open", opts.Container, backend.ErrCredentials, err)
	}
	ctx, w := c.Watch(ctx)
	defer w.Stop()
	pager := c.client.NewListBlobsFlatPager(&azcontainer.ListBlobsFlatOptions{Prefix: &c.prefix, MaxResults: new(int32(1))})
	if _, err = pager.NextPage(ctx); err != nil {
		return c.fail(ctx, "open", opts.Container, err)
	}
	// Not everybody may ask; Azure's answer to who may not is an error.
	account, err := c.client.GetAccountInfo(ctx, nil)
	if err == nil && value(account.IsHierarchicalNamespaceEnabled) {
		return backend.Fail("open", opts.Container, backend.ErrUnsupported, errHierarchical)
	}
	if ended := httpio.Ended(ctx, "open", opts.Container); ended != nil {
		return ended
	}
	return nil
}

var errHierarchical = errors.New("the account has a hierarchical namespace (Data Lake Storage), in which a directory is listed as one more blob")

func (c *container) signIn(opts *Options, o *azcontainer.ClientOptions) (err error) {
	signature := strings.TrimPrefix(os.Getenv(sasEnv), "?")
	switch {
	case opts.Key != "":
		c.auth.key, err = azcontainer.NewSharedKeyCredential(opts.Account, opts.Key)
		if err != nil {
			return errors.New("the key of the account is not in base64")
		}
		c.client, err = azcontainer.NewClientWithSharedKeyCredential(c.url, c.auth.key, o)
	case opts.Anonymous:
		c.client, err = azcontainer.NewClientWithNoCredential(c.url, o)
	case signature != "":
		c.auth.sas = signature
		c.client, err = azcontainer.NewClientWithNoCredential(c.url+"?"+signature, o)
	default:
		var chain *azidentity.DefaultAzureCredential
		chain, err = azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: azcore.ClientOptions{Transport: o.Transport, Telemetry: o.Telemetry, Retry: policy.RetryOptions{MaxRetries: 1}},
		})
		if err != nil {
			return errNoCredentials
		}
		c.auth.token = &credentials{next: chain}
		c.client, err = azcontainer.NewClient(c.url, c.auth.token, o)
	}
	return err
}

// sourceLife is how long a signature for the source of a copy is good.
const sourceLife = time.Hour

// source is the address of a blob that the server is to read by itself, and a
// token for it. A key does not reach that far: it signs for the one blob.
func (c *container) source(ctx context.Context, key string) (address string, token *string, err error) {
	b := c.client.NewBlobClient(c.prefix + key)
	switch {
	case c.auth.key != nil:
		address, err = b.GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(sourceLife), nil)
		return address, nil, err
	case c.auth.token != nil:
		t, err := c.auth.token.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
		if err != nil {
			return "", nil, err
		}
		return b.URL(), new("Bearer " + t.Token), nil
	}
	return b.URL(), nil, nil // with the signature, if there is one
}

// credentials classifies the failures of Azure's credential chain.
type credentials struct {
	next azcore.TokenCredential // which caches
	had  atomic.Bool            // there was a token once
}

var (
	errNoCredentials = errors.New("no credentials found: set " + keyEnv + " or " + sasEnv + ", log in by az login, or ask for anonymous access")
	errRefresh       = errors.New("the credentials could not be renewed")
)

// GetToken implements azcore.TokenCredential.
func (c *credentials) GetToken(ctx context.Context, opts policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.next.GetToken(ctx, opts)
	if err == nil {
		c.had.Store(true)
		return token, nil
	}
	// Who had credentials, and cannot refresh them for want of an answer, may
	// have them again: data that waits for its upload must not be given up.
	failed, _ := errors.AsType[*azidentity.AuthenticationFailedError](err)
	refused := failed != nil && failed.RawResponse != nil
	if c.had.Load() && !refused {
		return token, fmt.Errorf("%w: %w", errRefresh, err)
	}
	return token, fmt.Errorf("%w: %w", errNoCredentials, err)
}
