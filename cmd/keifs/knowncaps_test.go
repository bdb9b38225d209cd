package main

import (
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/keifs/keifs/backend"
)

func TestProbeIsRemembered(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	k := knownCaps{store: "s3://bucket", log: slog.New(slog.DiscardHandler)}
	if k.load() != nil {
		t.Fatal("something is known before the first probe")
	}
	want := backend.Caps{CondCreate: true, MaxPut: 5 << 30}
	k.save(want)
	if got := k.load(); got == nil || *got != want {
		t.Fatalf("remembered %+v, want %+v", got, want)
	}
	if (knownCaps{store: "s3://other", log: k.log}).load() != nil {
		t.Fatal("another store's probe is believed")
	}
	writeFile(t, k.path(), `{"store":"s3://bucket","probed":"2001-01-01T00:00:00Z","caps":{"CondCreate":true}}`)
	if k.load() != nil {
		t.Fatal("an old probe is believed")
	}
	writeFile(t, k.path(), `{"store":`)
	if k.load() != nil {
		t.Fatal("half a record is believed")
	}
}

func TestCustomerKeyFile(t *testing.T) {
	key := []byte("0123456789abcdef0123456789ABCDEF")
	for name, text := range map[string]string{"plain": string(key), "base64": base64.StdEncoding.EncodeToString(key) + "\n"} {
		s := newSettings(newShared())
		s.sseCustomerKeyFile = filepath.Join(t.TempDir(), name)
		writeFile(t, s.sseCustomerKeyFile, text)
		if got, err := s.customerKey(); err != nil || string(got) != string(key) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if err := os.WriteFile(s.sseCustomerKeyFile, []byte("short"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.customerKey(); err == nil {
			t.Errorf("%s: a short key is taken", name)
		}
	}
}
