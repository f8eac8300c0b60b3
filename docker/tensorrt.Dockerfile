# Builds engines with trtexec, runs them and compares them layer by layer.
ARG RELEASE
ARG BASE=nvcr.io/nvidia/tensorrt:${RELEASE}-py3
FROM ${BASE}
ARG PIP_INDEX_URL
ARG PIP_CERT
# ONNX Runtime for the CPU: the engines' layers are compared with float32 on a CPU. polygraphy of the
# base may be older than its TensorRT (0.50 with 11.1 in 26.07), so ours takes its place.
COPY add_packages.py requirements.txt requirements-cpu.txt /opt/verdict/
RUN python3 /opt/verdict/add_packages.py --without torch --replace polygraphy \
    /opt/verdict/requirements.txt /opt/verdict/requirements-cpu.txt
ENTRYPOINT ["bash", "-c", "exec \"$0\" \"$@\""]
COPY check_image.py /opt/verdict/
RUN python3 /opt/verdict/check_image.py tensorrt
