// Read a prompt once, and continue it several times: a copy of the state is another stream.
//
//     make build/librillet.a
//     c++ -std=c++17 -Inative/include examples/cpp/fork.cpp build/librillet.a -lm -o fork
//     ./fork models/shakespeare-nano "ROMEO:" 60 3
#include <rillet.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// A block as the library wants it: aligned, and freed by its owner.
struct Delete {
    void operator()(void *memory) const {
        ::operator delete(memory, std::align_val_t{RILLET_ALIGN});
    }
};
template <class T> using Block = std::unique_ptr<T, Delete>;

template <class T> Block<T> block(std::size_t bytes) {
    return Block<T>(static_cast<T *>(::operator new(bytes, std::align_val_t{RILLET_ALIGN})));
}

void check(rillet_status status, const char *message) {
    if (status != RILLET_OK) throw std::runtime_error(message);
}

std::string contents(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + " cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

class Model {
  public:
    explicit Model(const std::string &folder) {
        char message[RILLET_MESSAGE] = "";
        std::size_t bytes;
        const std::string weights = contents(folder + "/weights.safetensors");
        check(rillet_model_size(weights.data(), weights.size(), &bytes, message), message);
        model = block<rillet_model>(bytes);
        check(rillet_model_load(model.get(), bytes, weights.data(), weights.size(), message),
              message);
        const std::string json = contents(folder + "/tokenizer.json");
        check(rillet_tokenizer_size(json.data(), json.size(), &bytes, message), message);
        tokenizer = block<rillet_tokenizer>(bytes);
        check(rillet_tokenizer_load(tokenizer.get(), bytes, json.data(), json.size(), message),
              message);
    }

    std::vector<std::int32_t> encode(const std::string &text) const {
        std::vector<std::int32_t> tokens(text.size() + 1);
        auto scratch =
            block<void>(rillet_encode_scratch(tokenizer.get(), text.data(), text.size()));
        tokens.resize(rillet_encode(tokenizer.get(), text.data(), text.size(), tokens.data(),
                                    scratch.get()));
        return tokens;
    }

    Block<rillet_model> model;
    Block<rillet_tokenizer> tokenizer;
};

class Stream {
  public:
    explicit Stream(const Model &of)
        : model(of), bytes(rillet_state_size(of.model.get())), state(block<rillet_state>(bytes)),
          scratch(block<void>(rillet_scratch_size(of.model.get(), 1))),
          logits(static_cast<std::size_t>(rillet_vocabulary(of.model.get()))) {
        rillet_state_reset(model.model.get(), state.get());
    }

    // The copy knows all that was read, and continues on its own.
    Stream(const Stream &other) : Stream(other.model) {
        std::memcpy(state.get(), other.state.get(), bytes);
        logits = other.logits;
    }

    void read(std::int32_t token, float learn) {
        rillet_state *states[] = {state.get()};
        float *outputs[] = {logits.data()};
        check(rillet_read(model.model.get(), 1, states, &token, &learn, outputs, scratch.get()),
              "a token does not exist, or a log-probability is not finite");
    }

    std::string write(int count, std::uint64_t seed) {
        const rillet_sampling sampling = {0.8, 1, 0, 0};
        rillet_random random;
        rillet_decoder decoder = {};
        rillet_random_seed(&random, seed);
        std::vector<char> piece(rillet_decode_size(model.tokenizer.get()));
        std::string text;
        for (int i = 0; i < count; i++) {
            const std::int32_t token = rillet_draw(model.model.get(), &sampling, logits.data(),
                                                   rillet_random_next(&random), scratch.get());
            read(token, 0);
            text.append(piece.data(), rillet_decode(model.tokenizer.get(), &decoder, token,
                                                    piece.data()));
        }
        return text;
    }

  private:
    const Model &model;
    std::size_t bytes;
    Block<rillet_state> state;
    Block<void> scratch;
    std::vector<float> logits;
};

} // namespace

int main(int argc, char **argv) {
    if (argc != 5) {
        std::cerr << "usage: fork BUNDLE PROMPT TOKENS TEXTS\n";
        return 2;
    }
    try {
        const Model model(argv[1]);
        Stream prompt(model);
        auto tokens = model.encode(argv[2]);
        if (tokens.empty()) tokens.push_back(0); // a text begins with the first token
        for (std::int32_t token : tokens) prompt.read(token, 1);
        for (int i = 0; i < std::atoi(argv[4]); i++)
            std::cout << Stream(prompt).write(std::atoi(argv[3]), static_cast<std::uint64_t>(i))
                      << "\n---\n";
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
    return 0;
}
