// Reference reads objects, a line of JSON each, with Kubernetes' own types and writes what becomes of each, a line of JSON:
//
//	object     as it was given
//	wire       as a typed client sends it (protobuf, base64)
//	plain      as Go's JSON encoder writes what arrived over the wire, without nulls
//	defaulted  as kube-apiserver answers with it once it has read it: defaulted, and converted to the internal type and back
//
// or, if it can't be read strictly, {"object": …, "error": …}.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	strictjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/authentication/install"
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
)

var (
	scheme = legacyscheme.Scheme
	reader = strictjson.NewSerializerWithOptions(strictjson.DefaultMetaFactory, scheme, scheme, strictjson.SerializerOptions{Strict: true})
	wire   = protobuf.NewSerializer(scheme, scheme)
	codecs serializer.CodecFactory
)

func read(line []byte) (map[string]any, error) {
	object, kind, err := reader.Decode(line, nil, nil)
	if err != nil {
		return nil, err
	}
	var bytes bytes.Buffer
	if err := wire.Encode(object, &bytes); err != nil {
		return nil, err
	}
	sent, _, err := wire.Decode(bytes.Bytes(), nil, nil)
	if err != nil {
		return nil, err
	}
	plain, err := written(sent)
	if err != nil {
		return nil, err
	}
	version := kind.GroupVersion()
	internal, err := runtime.Decode(codecs.DecoderToVersion(reader, runtime.InternalGroupVersioner), line)
	if err != nil {
		return nil, err
	}
	text, err := runtime.Encode(codecs.EncoderForVersion(reader, version), internal)
	if err != nil {
		return nil, err
	}
	defaulted, err := decoded(text)
	return map[string]any{"wire": bytes.Bytes(), "plain": plain, "defaulted": defaulted}, err
}

func written(object runtime.Object) (any, error) {
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	return decoded(text)
}

func decoded(text []byte) (any, error) {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	err := decoder.Decode(&value)
	return withoutNulls(value), err
}

func withoutNulls(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			if inner == nil {
				delete(value, name)
			} else {
				value[name] = withoutNulls(inner)
			}
		}
	case []any:
		for i, inner := range value {
			value[i] = withoutNulls(inner)
		}
	}
	return value
}

func main() {
	apiextensions.Install(scheme)
	codecs = serializer.NewCodecFactory(scheme)
	input, output := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	input.Buffer(nil, 1<<24)
	output.SetEscapeHTML(false)
	for input.Scan() {
		found, err := read(input.Bytes())
		if err != nil {
			found = map[string]any{"error": err.Error()}
		}
		found["object"] = json.RawMessage(bytes.Clone(input.Bytes()))
		if err := output.Encode(found); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
