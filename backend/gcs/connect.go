package gcs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"
	htransport "google.golang.org/api/transport/http"

	"github.com/keifs/keifs/backend"
)

const (
	google = "https://storage.googleapis.com"
	// emulatorEnv is what Google's own clients heed too.
	emulatorEnv = "STORAGE_EMULATOR_HOST"
)

// connect makes the client, and asks the bucket for one key, which shows
// whether all is well. It tells whether its namespace is hierarchical.
func (b *bucket) connect(ctx context.Context, opts *Options) (hierarchical bool, err error) {
	b.server = opts.Endpoint
	if host := os.Getenv(emulatorEnv); b.server == "" && host != "" {
		if !strings.Contains(host, "://") {
			host = "http://" + host
		}
		b.server, opts.Anonymous = strings.TrimSuffix(host, "/"), true
		b.url += "?endpoint=" + b.server
	}
	if b.server == "" {
		b.server = google
	}
	auth, err := opts.auth()
	if err != nil {
		return false, backend.Fail("open", b.name, backend.ErrCredentials, err)
	}
	// The credentials may be renewed as long as the backend lives.
	transport, err := htransport.NewTransport(context.WithoutCancel(ctx), b.Transport, auth...)
	if err != nil {
		return false, backend.Fail("open", b.name, backend.ErrCredentials,
			fmt.Errorf("%w; set GOOGLE_APPLICATION_CREDENTIALS, run \"gcloud auth application-default login\", give a key, or ask for anonymous access", firstLine(err)))
	}
	b.http = &http.Client{Transport: transport}
	service, err := storage.NewService(ctx, option.WithHTTPClient(b.http), option.WithEndpoint(b.server+"/storage/v1/"))
	if err != nil {
		return false, backend.Fail("open", b.name, backend.ErrInvalid, err)
	}
	b.objects = service.Objects
	req, w := b.Watch(ctx)
	defer w.Stop()
	_, err = b.objects.List(b.name).Prefix(b.prefix).MaxResults(1).Fields("nextPageToken").Context(req).Do()
	if err = b.fail(req, "open", b.name, err); err != nil {
		return false, err
	}
	layout, err := service.Buckets.GetStorageLayout(b.name).Context(req).Do()
	if err != nil {
		b.log.Debug("the bucket does not tell how its names are laid out", "bucket", b.name, "err", err)
		return false, nil
	}
	return layout.HierarchicalNamespace != nil && layout.HierarchicalNamespace.Enabled, nil
}

// auth are the credentials: given, none, or those that the environment has.
func (o *Options) auth() ([]option.ClientOption, error) {
	scopes := option.WithScopes(storage.DevstorageReadWriteScope)
	switch {
	case o.Anonymous:
		return []option.ClientOption{option.WithoutAuthentication()}, nil
	case o.Key == nil:
		return []option.ClientOption{scopes}, nil
	}
	var key struct {
		Type option.CredentialsType `json:"type"`
	}
	if err := json.Unmarshal(o.Key, &key); err != nil || key.Type == "" {
		return nil, errors.New("the key is not the JSON of Google's credentials")
	}
	return []option.ClientOption{scopes, option.WithAuthCredentialsJSON(key.Type, o.Key)}, nil
}

func firstLine(err error) error {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(line)
}
