# Measures a running server: NVIDIA's SDK image, which holds perf_analyzer.
ARG RELEASE
ARG BASE=nvcr.io/nvidia/tritonserver:${RELEASE}-py3-sdk
FROM ${BASE}
ARG PIP_INDEX_URL
ARG PIP_CERT
COPY add_packages.py requirements.txt /opt/verdict/
RUN python3 /opt/verdict/add_packages.py --without torch /opt/verdict/requirements.txt
ENTRYPOINT ["bash", "-c", "exec \"$0\" \"$@\""]
COPY check_image.py /opt/verdict/
RUN python3 /opt/verdict/check_image.py client
