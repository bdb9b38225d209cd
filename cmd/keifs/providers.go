package main

import (
	"encoding/base64"
	"log/slog"
	"os"
	"strings"

	"github.com/keifs/keifs/backend/all"
	"github.com/keifs/keifs/backend/azure"
	"github.com/keifs/keifs/backend/bunny"
	"github.com/keifs/keifs/backend/gcs"
	"github.com/keifs/keifs/backend/s3"
)

// providers are the options of the providers, of which the URL chooses one. A
// setting that several have has one flag; all share one pool of connections.
func (s *settings) providers(log *slog.Logger) (all.Options, error) {
	customerKey, err := s.customerKey()
	if err != nil {
		return all.Options{}, err
	}
	key, err := s.key()
	if err != nil {
		return all.Options{}, err
	}
	o := all.Options{
		S3: s3.Options{
			Endpoint: s.endpoint, Region: s.region, Profile: s.profile,
			Anonymous: s.anonymous, RequesterPays: s.requesterPays,
			StorageClass: s.storageClass, SSE: s.sse.value, SSEKMSKeyID: s.sseKMSKeyID, SSECustomerKey: customerKey,
			Transport: s.shared.transport, Logger: log,
		},
		GCS: gcs.Options{
			Endpoint: s.endpoint, Key: key, Anonymous: s.anonymous, StorageClass: s.storageClass,
			Transport: s.shared.transport, Logger: log,
		},
		Azure: azure.Options{
			Endpoint: s.endpoint, Account: s.account, Key: strings.TrimSpace(string(key)), Anonymous: s.anonymous,
			Transport: s.shared.transport,
		},
		Bunny: bunny.Options{
			Endpoint: s.endpoint, Region: s.region, Key: strings.TrimSpace(string(key)), Transport: s.shared.transport,
		},
	}
	if f := s.flags.Lookup("path-style"); f.Changed {
		o.S3.PathStyle = &s.pathStyle
	}
	return o, nil
}

// fits returns an error for an option that another cloud than Amazon's would
// have to ignore, though somebody counts on it.
func (s *settings) fits(url string) error {
	scheme, _, _ := strings.Cut(url, ":")
	if scheme != "gs" && scheme != "az" && scheme != "bunny" {
		return nil
	}
	for _, o := range []struct {
		name string
		set  bool
	}{
		{"sse", s.sse.value != ""}, {"sse-kms-key-id", s.sseKMSKeyID != ""}, {"sse-customer-key-file", s.sseCustomerKeyFile != ""},
		{"storage-class", s.storageClass != "" && scheme != "gs"},
	} {
		if o.set {
			return usageError("--%s is not for %s://", o.name, scheme)
		}
	}
	return nil
}

// key reads the file of --key-file: a file, since what is on a command line or
// in the environment is seen by others. It is nil without.
func (s *settings) key() ([]byte, error) {
	if s.keyFile == "" {
		return nil, nil
	}
	key, err := os.ReadFile(s.keyFile)
	if err != nil {
		return nil, usageError("--key-file: %w", err)
	}
	if len(key) == 0 {
		return nil, usageError("--key-file: %s is empty", s.keyFile)
	}
	return key, nil
}

// customerKey reads the file of --sse-customer-key-file.
func (s *settings) customerKey() ([]byte, error) {
	if s.sseCustomerKeyFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.sseCustomerKeyFile)
	if err != nil {
		return nil, usageError("--sse-customer-key-file: %w", err)
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text))); err == nil && len(key) == 32 {
		return key, nil
	}
	if len(text) != 32 {
		return nil, usageError("--sse-customer-key-file: %s must hold 32 bytes, as they are or in base64", s.sseCustomerKeyFile)
	}
	return text, nil
}
